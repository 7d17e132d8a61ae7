"""How Aurora is sampled: prompts, truncation towards each prompt's own mean, sheets and videos."""

import colorsys
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ganjax.families.aurora.encoder import Encoder
from ganjax.families.aurora.losses import told_by_layer
from ganjax.families.aurora.networks import Generator, truncated
from ganjax.families.aurora.phases import FROZEN
from ganjax.family import Bind, Request
from ganjax.sampling import interpolation, sheets, truncation
from ganjax.sampling.sheets import Sheet, Video

COLUMNS = 8  # of a sheet
MOVING = 4  # columns of a video
STEPS = 9  # of an interpolation, both ends included
MEAN = 16  # latents whose w is averaged for a prompt, as in the released script
PSIS = (1.0, 0.7, 0.5, 0.0)  # of the truncation sheet; 0 is the prompt's mean image
TITLE = 40  # letters

Tokenizer = Callable[[Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling of a generator.

    Attributes:
        generator: the module.
        encoder: reads the prompts; its variables are among those of a sampler, as "frozen".
        tokenizer: makes the tokenizer, once there are prompts to be read.
        prompts: where nobody asks for others.
        truncation: distance from a prompt's mean w that is kept where nobody asks for another.
        stages: the largest resolution of each.
    """

    generator: Generator
    encoder: Encoder
    tokenizer: Callable[[], Tokenizer]
    prompts: tuple[str, ...]
    truncation: float
    stages: tuple[int, ...]

    def draws(self, key: Any, indices: Any, request: Request) -> dict[str, Array]:
        """Latents, tokens and truncation of samples ``indices``, which go round the prompts."""
        tokens = jnp.asarray(self._tokens(request))
        z = truncation.latents_at(key, indices, self.generator.latent_dim)
        return self._asked(z, tokens[jnp.asarray(indices) % len(tokens)], self._kept(request), key)

    def sample(self, variables: Mapping[str, Any], draws: Mapping[str, Array]) -> Array:
        """Images [n, h, w, c] of full size, clipped to [-1, 1], float32.

        A generator that grows makes images of its stage, ``variables["stage"]``, with each pixel
        repeated. With ``draws["means"]`` [n, m, d] w is truncated towards the mean of the w of
        these latents and the sample's own text. With ``draws["weights"]`` [n, k] each image has k
        latents, ``draws["z"]`` [n, k, d], whose w are mixed so; with ``draws["text_weights"]``
        [n, k] k texts, ``draws["tokens"]`` [n, k, l], of which what the text head makes is mixed
        so. With ``draws["routing_8"]`` it is a picture of the experts that the last mixture at 8x8
        chose.
        """
        own = {k: v for k, v in variables.items() if k not in ("frozen", "stage")}

        def ask(method: str, *inputs: Any, **options: Any) -> Any:
            return self.generator.apply(own, *inputs, method=method, **options)

        tokens = draws["tokens"]
        read = self.encoder.read(
            variables["frozen"][FROZEN], {"tokens": tokens.reshape(-1, tokens.shape[-1])}
        )
        whole, context = ask("read", read.states, read.end)
        if "text_weights" in draws:
            weights = draws["text_weights"]
            whole, context = (
                jnp.einsum("nk,nk...->n...", weights, x.reshape(*weights.shape, *x.shape[1:]))
                for x in (whole, context)
            )
        ws = _mixed(lambda z, w: ask("map", z, w), draws["z"], whole, draws.get("weights"))
        if "means" in draws:
            alike = jnp.full(draws["means"].shape[:2], 1 / draws["means"].shape[1])
            centre = _mixed(lambda z, w: ask("map", z, w), draws["means"], whole, alike)
            ws = truncated(ws, centre, draws["truncation"])
        routing = [name for name in draws if name.startswith("routing_")]
        if routing:
            _, told = ask("synthesize", ws, context, mutable=["moe"])
            return self._routing(told, int(routing[0].removeprefix("routing_")))
        images = ask("synthesize", ws, context)
        made = jnp.stack([self._full(images[size]) for size in self.stages])
        image = made[variables["stage"]] if "stage" in variables else made[-1]
        return jnp.clip(image, -1.0, 1.0).astype(jnp.float32)

    def sheets(self) -> dict[str, Callable[[Bind, Any, Request], Sheet]]:
        """``grid``, ``truncation``, ``prompts``, ``latents``, ``styles`` and ``routing``."""
        made = {
            "grid": self._grid,
            "truncation": self._truncation,
            "prompts": self._between_prompts,
            "latents": self._between_latents,
            "styles": self._between_styles,
        }
        return made | ({"routing": self._routing_sheet} if self._mixtures() else {})

    def videos(self) -> dict[str, Callable[[Bind, Any, Request], Video]]:
        """``z`` and ``w``: where the path is smooth."""
        return {"z": self._moving_z, "w": self._moving_w}

    def _grid(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """One prompt a row; every image has its own latent."""
        prompts, tokens = self._rows(request)
        z = self._z(key, len(prompts) * COLUMNS)
        images = self._draw(bind, request, key, z, np.repeat(tokens, COLUMNS, axis=0))
        return Sheet(images, COLUMNS, (), _titles(prompts))

    def _truncation(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """The latents of the grid's first prompt in all rows, ever closer to its mean w."""
        _, tokens = self._rows(request)
        z, tokens = self._z(key, COLUMNS), np.repeat(tokens[:1], COLUMNS, axis=0)
        blocks = [
            self._draw(bind, dataclasses.replace(request, truncation=psi), key, z, tokens)
            for psi in PSIS
        ]
        return Sheet(np.concatenate(blocks), COLUMNS, (), tuple(f"{psi:g}" for psi in PSIS))

    def _between_prompts(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """A row from one prompt to the next, z fixed (Aurora, figure 4)."""
        prompts, tokens = self._rows(request)
        n = len(prompts)
        pairs = np.stack([tokens, np.roll(tokens, -1, axis=0)], axis=1)  # [n, 2, l]
        z = jnp.repeat(self._z(key, n), STEPS, axis=0)
        images = self._draw(
            bind, request, key, z, np.repeat(pairs, STEPS, axis=0), text_weights=_ends(n)
        )
        return Sheet(images, STEPS, (), _titles(prompts))

    def _between_latents(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """A row from one latent to another, the prompt fixed (Aurora, figure 5)."""
        prompts, tokens = self._rows(request)
        ends = self._z(key, 2 * len(prompts))
        z = interpolation.path(ends[0::2], ends[1::2], STEPS).reshape(-1, ends.shape[-1])
        images = self._draw(bind, request, key, z, np.repeat(tokens, STEPS, axis=0))
        return Sheet(images, STEPS, (), _titles(prompts))

    def _between_styles(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """As `_between_latents`, straight between the two w."""
        prompts, tokens = self._rows(request)
        n = len(prompts)
        z = jnp.repeat(self._z(key, 2 * n).reshape(n, 2, -1), STEPS, axis=0)
        images = self._draw(
            bind, request, key, z, np.repeat(tokens, STEPS, axis=0), weights=_ends(n)
        )
        return Sheet(images, STEPS, (), _titles(prompts))

    def _routing_sheet(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """A sample of each prompt, and which expert saw each of its places (Aurora, figure 6).

        A colour is an expert's, of the last mixture at a resolution.
        """
        prompts, tokens = self._rows(request)
        z, sizes = self._z(key, len(prompts)), self._mixtures()
        columns = [self._draw(bind, request, key, z, tokens)]
        for size in sizes:
            marks = {f"routing_{size}": np.ones(len(z), np.float32)}
            columns.append(self._draw(bind, request, key, z, tokens, **marks))
        images = np.stack([np.broadcast_to(c, (*c.shape[:3], 3)) for c in columns], axis=1)
        titles = ("", *(f"{size}x{size}" for size in sizes))
        return Sheet(
            images.reshape(-1, *images.shape[2:]), 1 + len(sizes), titles, _titles(prompts)
        )

    def _moving_z(self, bind: Bind, key: Any, request: Request) -> Video:
        """One prompt a column; z goes round on the sphere, where the mapping's input lies."""
        prompts, tokens, columns = self._columns(request)

        def sample(z: Array, labels: Array) -> Array:
            return self._sampler(bind, request, key)(z, jnp.asarray(tokens)[labels])

        return sheets.latent_cycle(
            sample,
            key,
            columns,
            request.rows,
            self.generator.latent_dim,
            frames=request.frames,
            anchors=request.anchors,
            column_titles=prompts,
        )

    def _moving_w(self, bind: Bind, key: Any, request: Request) -> Video:
        """w goes round, through the w of the latents that `_moving_z` passes."""
        prompts, tokens, columns = self._columns(request)
        labels = np.tile(np.asarray(columns, np.int32), request.rows)
        anchors = self._z(key, len(labels) * request.anchors)

        def blend(weights: np.ndarray) -> sheets.Sample:
            def sample(z: Array, labels: Array) -> Array:
                shares = jnp.broadcast_to(weights, z.shape[:2])
                return self._sampler(bind, request, key, ("weights",))(
                    z, jnp.asarray(tokens)[labels], shares
                )

            return sample

        anchors = anchors.reshape(len(labels), request.anchors, -1)
        return sheets.cycle(blend, anchors, labels, request.frames, len(columns), prompts)

    def _routing(self, told: Any, size: int) -> Float[Array, "n h w 3"]:
        """The experts that the last mixture at a resolution chose, as colours of full size."""
        last, experts = self._mixtures()[size]
        layers = told_by_layer(told)
        said = [layers[name] for name in layers if name.startswith(f"synthesis/net_{last}/")][-1]
        hues = [colorsys.hsv_to_rgb(e / experts, 1.0, 1.0) for e in range(experts)]
        colours = 2 * jnp.asarray(hues, jnp.float32) - 1
        return self._full(colours[said.expert].reshape(-1, size, size, 3))

    def _mixtures(self) -> dict[int, tuple[int, int]]:
        """By resolution: the last block with a mixture of experts, and its experts."""
        return {
            stage.resolution: (blocks[-1], stage.experts)
            for stage, blocks in self.generator.blocks()
            if stage.attention is not None and stage.experts > 1
        }

    def _full(self, images: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        """Images of full size, each pixel repeated: their means are the images again."""
        times = self.generator.resolution // images.shape[1]
        return jnp.repeat(jnp.repeat(images, times, axis=1), times, axis=2)

    def _sampler(
        self, bind: Bind, request: Request, key: Any, more: Sequence[str] = ()
    ) -> Callable[..., Array]:
        """``(z, tokens, *more) -> images``."""
        kept, sample = self._kept(request), bind(request.truncation)

        def asked(z: Array, tokens: Array, *rest: Array) -> Array:
            return sample(self._asked(z, tokens, kept, key) | dict(zip(more, rest, strict=True)))

        return asked

    def _draw(
        self, bind: Bind, request: Request, key: Any, z: Array, tokens: np.ndarray, **more: Any
    ) -> Float[np.ndarray, "n h w c"]:
        sampler = self._sampler(bind, request, key, tuple(more))
        return sheets.in_chunks(sampler, z, tokens, *more.values())

    def _asked(self, z: Array, tokens: Array, kept: float, key: Any) -> dict[str, Array]:
        """Draws with truncation, where there is any."""
        draws = {"z": z, "tokens": tokens}
        if kept == 1:
            return draws
        means = jax.random.normal(jax.random.fold_in(key, MEAN), (MEAN, z.shape[-1]))
        means = jnp.broadcast_to(means, (len(z), *means.shape))
        return {**draws, "means": means, "truncation": jnp.full(len(z), kept, jnp.float32)}

    def _rows(self, request: Request) -> tuple[tuple[str, ...], Int[np.ndarray, "n l"]]:
        """Prompts of a sheet's rows: those asked for, else as many as there are rows."""
        prompts = request.prompts or self.prompts[: request.rows]
        return prompts, self._tokens(dataclasses.replace(request, prompts=prompts))

    def _columns(
        self, request: Request
    ) -> tuple[tuple[str, ...], Int[np.ndarray, "n l"], tuple[int, ...]]:
        prompts = (request.prompts or self.prompts)[:MOVING]
        tokens = self._tokens(dataclasses.replace(request, prompts=prompts))
        return _titles(prompts), tokens, tuple(range(len(prompts)))

    def _tokens(self, request: Request) -> Int[np.ndarray, "n l"]:
        return np.asarray(self.tokenizer()(request.prompts or self.prompts), np.int32)

    def _kept(self, request: Request) -> float:
        return self.truncation if request.truncation is None else request.truncation

    def _z(self, key: Any, n: int) -> Array:
        return truncation.latents(key, 0, n, self.generator.latent_dim)


def _mixed(
    map_: Callable[[Array, Array], Array], z: Array, whole: Array, weights: Array | None
) -> Float[Array, "n num_ws d"]:
    """The w of latents, or the mixture of those of several latents."""
    if weights is None:
        return map_(z, whole)
    n, k = weights.shape
    each = map_(z.reshape(n * k, -1), jnp.repeat(whole, k, axis=0))
    return jnp.einsum("nk,nklw->nlw", weights, each.reshape(n, k, *each.shape[1:]))


def _ends(rows: int) -> Float[np.ndarray, "n 2"]:
    """Weights of both ends along each row."""
    t = np.linspace(0.0, 1.0, STEPS, dtype=np.float32)
    return np.tile(np.stack([1 - t, t], axis=1), (rows, 1))


def _titles(prompts: Sequence[str]) -> tuple[str, ...]:
    return tuple(p if len(p) <= TITLE else f"{p[: TITLE - 1]}…" for p in prompts)
