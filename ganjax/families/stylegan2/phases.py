"""StyleGAN2's phases: main and lazily regularised turns of G, then of D (StyleGAN2, appendix B).

    g/main   non-saturating logistic loss
    g/path   path-length regularisation, every 4 steps
    d/main   logistic loss
    d/r1     gradient penalty on reals, every 16 steps

Fakes come with mixed styles everywhere, as in the official code, and whatever D sees is augmented.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ganjax.adversarial.ada import Fixed
from ganjax.adversarial.losses import logistic_d, logistic_g
from ganjax.adversarial.phases import Game, Outcome, Phase
from ganjax.families.stylegan2.networks import Discriminator, StyleGenerator
from ganjax.layers.filtering import filter2d
from ganjax.layers.images import to_float

# The penalties do not depend on these, so their phases leave them alone, moments and all. The
# stylegan3 release skips parameters without a gradient; stylegan2-ada-pytorch steps them.
PATH_TOUCHES = r"^(?!synthesis/b\d+/torgb/bias$)"
R1_TOUCHES = r"^(?!b4/out/bias$)"

Drawn = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Blur:
    """The discriminator's input is blurred at first (StyleGAN3, appendix F.2).

    Attributes:
        sigma: of the blur before the first step, in pixels.
        fade_images: real images until there is none.
    """

    sigma: float
    fade_images: float

    def __call__(self, images: Float[Array, "n h w c"], items: Any) -> Float[Array, "n h w c"]:
        """The blurred images after `items` images of training."""
        reach = math.floor(3 * self.sigma)
        # Taps of a fixed number, those beyond three sigma being zero.
        sigma = jnp.maximum(1 - items / self.fade_images, 0.0) * self.sigma
        sigma = sigma.astype(images.dtype)
        distance = jnp.abs(jnp.arange(-reach, reach + 1))
        taps = jnp.exp2(-jnp.square(distance / jnp.maximum(sigma, 1e-3)))
        taps = jnp.where(distance <= jnp.floor(3 * sigma), taps, 0.0)
        return filter2d(images, taps / jnp.sum(taps))


@dataclasses.dataclass(frozen=True)
class Losses:
    """The four losses over a pair of networks.

    Attributes:
        r1_gamma: weight of the gradient penalty; half of it multiplies the squared gradient.
        mixing: probability that a batch has styles of two latents (StyleGAN, section 3.1).
        path_weight: of the path-length penalty.
        path_decay: share of a batch's mean length in the running one.
        averages_in: phases that move running means: of w, and StyleGAN3's of magnitudes.
            NOTE: d/main alone as in stylegan3; stylegan2-ada-pytorch moves it in g/* too.
        blur: of the discriminator's input; None: none.
        augment: augmentation of the discriminator's input, after the blur; None: none.

    Raises:
        ValueError: a negative weight, a probability or share that is none.
    """

    generator: StyleGenerator
    discriminator: Discriminator
    r1_gamma: float = 10.0
    mixing: float = 0.0
    path_weight: float = 2.0
    path_decay: float = 0.01
    averages_in: tuple[str, ...] = ("d/main",)
    blur: Blur | None = None
    augment: Fixed | None = None

    def __post_init__(self) -> None:
        for name in ("r1_gamma", "path_weight"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"config.loss.{name}={getattr(self, name):g} would reward what it is to"
                    " penalise; set it to 0 (none) or more."
                )
        for name in ("mixing", "path_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"config.loss.{name}={getattr(self, name):g} is no share; set 0 to 1."
                )

    def styles(
        self, variables: Any, draws: Drawn, phase: str
    ) -> tuple[Float[Array, "n layers d"], dict[str, Any]]:
        """The w of each layer, mixed, and the generator's side state."""
        labels = draws.get("label")
        mutable = ["averages"] if phase in self.averages_in else False
        found: Any = self.generator.apply(
            variables, draws["z"], labels, method="styles", mutable=mutable
        )
        ws, side = found if mutable else (found, {})
        if self.mixing:
            others: Any = self.generator.apply(
                variables, draws["mixing_z"], labels, method="styles"
            )
            # One cutoff for the batch: the layers from it on have the other style.
            layers = self.generator.num_ws
            cutoff = jnp.where(draws["mixing"] < self.mixing, draws["cutoff"], layers)
            ws = jnp.where(jnp.arange(layers)[:, None] < cutoff, ws, others)
        return ws, dict(side)

    def images(
        self, variables: Any, ws: Array, draws: Drawn, phase: str = ""
    ) -> tuple[Float[Array, "n *thw c"], dict[str, Any]]:
        """Fakes, without drawn noise by that of the generator's buffers, and its side state."""
        inputs = (ws, draws["noise"]) if draws.get("noise") else (ws,)
        mutable = ["averages"] if phase in self.averages_in else False
        found: Any = self.generator.apply(variables, *inputs, method="synthesize", mutable=mutable)
        images, side = found if mutable else (found, {})
        return images, dict(side)

    def fakes(
        self, variables: Any, draws: Drawn, phase: str
    ) -> tuple[Float[Array, "n *thw c"], dict[str, Any]]:
        """Fakes, and the side state that the mapping and the layers have moved."""
        ws, side = self.styles(variables, draws, phase)
        images, more = self.images({**variables, **side}, ws, draws, phase)
        return images, more or side

    def reals(self, game: Game) -> Float[Array, "n *thw c"]:
        """The real samples of a microbatch, in [-1, 1]."""
        return to_float(game.batch["image"])

    def told(self, samples: Mapping[str, Any]) -> tuple[Any, ...]:
        """What D is told of fakes (their draws) or reals (their batch) beside what it sees."""
        return (samples.get("label") if self.discriminator.classes else None,)

    def seen(
        self, images: Float[Array, "n *thw c"], game: Game, view: str
    ) -> Float[Array, "n *thw c"]:
        """Images as D sees them: blurred, and augmented by the draws of a view."""
        if self.blur is not None:
            images = self.blur(images, game.items)
        if self.augment is not None:
            images = self.augment(images, game.draws[view], game.extras)
        return images

    def judge(
        self, variables: Any, images: Float[Array, "n *thw c"], told: tuple[Any, ...]
    ) -> Float[Array, "n"]:
        """Logits of images as D sees them."""
        logits: Any = self.discriminator.apply(variables, images, *told)
        return logits

    def judge_both(
        self,
        variables: Any,
        fakes: Float[Array, "n *thw c"],
        fakes_told: tuple[Any, ...],
        reals: Float[Array, "n *thw c"],
        reals_told: tuple[Any, ...],
    ) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
        """Logits of fakes and of reals, neither of which sees the others' minibatch deviation.

        In one pass where that is so: the two are interleaved, and a group then has every so many
        samples of one kind. Unlike a concatenation this keeps each sample on its device.
        """
        size = self.discriminator.group_size
        if size is None or len(fakes) % size:
            fake = self.judge(variables, fakes, fakes_told)
            return fake, self.judge(variables, reals, reals_told)

        def interleave(a: Array, b: Array) -> Array:
            return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])

        told = jax.tree.map(interleave, fakes_told, reals_told)
        logits = self.judge(variables, interleave(fakes, reals), told).reshape(-1, 2)
        return logits[:, 0], logits[:, 1]

    def path_gradient(self, variables: Any, ws: Array, draws: Drawn) -> Float[Array, "n layers d"]:
        """Of a random direction in the space of images, by w (Eq. 4)."""

        def projection(ws: Array) -> Array:
            images, _ = self.images(variables, ws, draws)
            pixels = images.shape[1] * images.shape[2]
            return jnp.sum(images * draws["pixels"]) / math.sqrt(pixels)

        return jax.grad(projection)(ws)

    def r1_gradient(
        self, variables: Any, images: Float[Array, "n *thw c"], told: tuple[Any, ...], game: Game
    ) -> tuple[Float[Array, "n *thw c"], Float[Array, "n"]]:
        """Of the logits, by the image as it was (Mescheder et al., 2018); and the logits."""

        def total(images: Array) -> tuple[Array, Array]:
            logits = self.judge(variables, self.seen(images, game, "real_view"), told)
            return jnp.sum(logits), logits

        return jax.grad(total, has_aux=True)(images)

    def g_main(self, params: Any, game: Game) -> tuple[Array, Outcome]:
        """Non-saturating logistic loss of the generator."""
        variables = {**game.players["g"], "params": params}
        images, side = self.fakes(variables, game.draws, "g/main")
        images = self.seen(images, game, "fake_view")
        logits = self.judge(game.players["d"], images, self.told(game.draws))
        metrics = {"logit_fake": jnp.mean(logits)}
        return logistic_g(logits), Outcome(kept("g", side), metrics)

    def g_path(self, params: Any, game: Game) -> tuple[Array, Outcome]:
        """Path lengths' distance from their running mean, which has a gradient, too."""
        variables = {**game.players["g"], "params": params}
        ws, side = self.styles(variables, game.draws, "g/path")
        gradient = self.path_gradient(variables, ws, game.draws)
        # How far an image moves for a step in w.
        lengths = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(gradient), axis=2), axis=1))
        mean = game.extras["path_mean"]
        mean = mean + self.path_decay * (jnp.mean(lengths) - mean)
        penalty = jnp.mean(jnp.square(lengths - mean))
        extras = {"path_mean": jax.lax.stop_gradient(mean)}
        metrics = {"length": jnp.mean(lengths), "penalty": penalty}
        return self.path_weight * penalty, Outcome(kept("g", side), metrics, extras)

    def d_main(self, params: Any, game: Game) -> tuple[Array, Outcome]:
        """Logistic loss on a fake and a real batch, each with its own minibatch deviation."""
        fakes, side = self.fakes(game.players["g"], game.draws, "d/main")
        variables = {**game.players["d"], "params": params}
        fake, real = self.judge_both(
            variables,
            self.seen(fakes, game, "fake_view"),
            self.told(game.draws),
            self.seen(self.reals(game), game, "real_view"),
            self.told(game.batch),
        )
        real_loss, fake_loss = logistic_d(real, fake)
        metrics = {
            "loss_real": real_loss,
            "loss_fake": fake_loss,
            "logit_real": jnp.mean(real),
            "logit_fake": jnp.mean(fake),
        }
        extras: dict[str, Any] = {}
        if self.augment is not None:
            extras = self.augment.observe(game.extras, real)
            metrics["sign_real"] = jnp.mean(jnp.sign(real))
            metrics["augment_p"] = jnp.asarray(self.augment.probability(game.extras))
        return real_loss + fake_loss, Outcome(kept("g", side), metrics, extras)

    def d_r1(self, params: Any, game: Game) -> tuple[Array, Outcome]:
        """Gradient penalty on reals; of clips the mean over frames."""
        variables = {**game.players["d"], "params": params}
        told = self.told(game.batch)
        gradient, logits = self.r1_gradient(variables, self.reals(game), told, game)
        penalty = jnp.mean(jnp.sum(jnp.square(gradient), axis=(-3, -2, -1)))
        extras = {} if self.augment is None else self.augment.observe(game.extras, logits)
        return self.r1_gamma / 2 * penalty, Outcome(metrics={"penalty": penalty}, extras=extras)

    def views(self, *names: str) -> "Views":
        """Draws of the augmentation of what D sees."""
        generator = self.generator
        size = (generator.resolution, generator.resolution, generator.image_channels)
        return Views(self.augment, size, names)

    def draws(self, *views: str, **fields: Any) -> "Draws":
        """Draws of fakes, and of views of what D sees."""
        own = self.views(*views) if views else None
        return Draws(self.generator, bool(self.mixing), views=own, **fields)


def kept(player: str, side: Mapping[str, Any]) -> dict[str, Any]:
    """Side state for an `Outcome`; nothing where there is none."""
    return {player: side} if side else {}


@dataclasses.dataclass(frozen=True)
class Views:
    """Random numbers of the augmentation of what D sees.

    Attributes:
        augment: what draws them; None: there is nothing to draw.
        size: of an image: (h, w, c), or of a clip.
        names: `fake_view`, `real_view`.
    """

    augment: Fixed | None
    size: tuple[int, ...]
    names: tuple[str, ...]

    def __call__(self, key: Array, game: Game) -> dict[str, Any]:
        if self.augment is None:
            return {}
        shape = (game.size, *self.size)
        return {
            name: self.augment.draw(jax.random.fold_in(key, zlib.crc32(name.encode())), shape)
            for name in self.names
        }


@dataclasses.dataclass(frozen=True)
class Draws:
    """Everything random about a microbatch of fakes.

    Labels are those of the real samples of the same microbatch.
    NOTE: the official code draws other samples' labels, of the same distribution.

    Attributes:
        generator: tells sizes.
        mixing: styles may be mixed, see `Losses.mixing`.
        pixels: a direction in the space of images, too, for path lengths.
        shrink: fakes are the microbatch's size divided by this.
        views: of the augmentation of what D sees.
        batch: the stream whose samples tell something of fakes; None: none does.
    """

    generator: StyleGenerator
    mixing: bool = False
    pixels: bool = False
    shrink: int = 1
    views: Views | None = None

    @property
    def batch(self) -> str | None:
        return "real" if self.generator.classes else None

    def __call__(self, key: Array, game: Game) -> dict[str, Any]:
        generator, n = self.generator, game.size // self.shrink
        keys = iter(jax.random.split(key, 5))
        draws: dict[str, Any] = {"z": jax.random.normal(next(keys), (n, generator.latent_dim))}
        noise_key = next(keys)
        draws["noise"] = {
            name: jax.random.normal(jax.random.fold_in(noise_key, index), (n, h, w, 1))
            for index, (name, (h, w)) in enumerate(generator.noise_shapes().items())
        }
        if generator.classes:
            draws["label"] = game.batch["label"][:n]
        if self.mixing:
            draws["cutoff"] = jax.random.randint(next(keys), (), 1, generator.num_ws)
            uniform, latent = jax.random.split(next(keys))
            draws["mixing"] = jax.random.uniform(uniform)
            draws["mixing_z"] = jax.random.normal(latent, (n, generator.latent_dim))
        if self.pixels:
            size = (generator.resolution, generator.resolution, generator.image_channels)
            draws["pixels"] = jax.random.normal(next(keys), (n, *size))
        return draws if self.views is None else draws | self.views(key, game)


def phases(
    losses: Losses,
    *,
    batch: int,
    microbatches: int = 1,
    path_every: int = 4,
    path_shrink: int = 2,
    r1_every: int = 16,
    touch_all: bool = False,
) -> tuple[Phase, ...]:
    """``g/main``, ``g/path``, ``d/main``, ``d/r1``; a weight of 0 leaves a regulariser out.

    Args:
        batch: samples an optimizer step sees, over all devices.
        microbatches: parts of it whose gradients are added up, each the gradient of a mean.
        path_shrink: path lengths are of this part of the samples.
        touch_all: regularisers step all parameters, as in stylegan2-ada-pytorch.

    Raises:
        ValueError: ``batch`` does not divide into microbatches, nor these into what path lengths
            are of; a regulariser that is never played.
    """
    for name, every, weight in (
        ("path", path_every, losses.path_weight),
        ("r1", r1_every, losses.r1_gamma),
    ):
        if weight and every < 1:
            raise ValueError(
                f"config.loss.{name}_every={every}: a regulariser is played every 1 or more steps."
                " Set that, or its weight to 0 (path_weight, r1_gamma) to leave it out."
            )
    parts = microbatches * (path_shrink if losses.path_weight else 1)
    if batch % parts:
        raise ValueError(
            f"config.train.batch={batch} is no multiple of {parts}, config.train.microbatches times"
            " config.loss.path_shrink. Set config.train.batch to"
            f" {batch - batch % parts or parts} or another multiple."
        )
    shared: dict[str, Any] = dict(
        size=batch // microbatches, microbatches=microbatches, reduce="sum"
    )

    g_draws, d_draws = losses.draws("fake_view"), losses.draws("fake_view", "real_view")
    observed = () if losses.augment is None else losses.augment.writes

    def writes(name: str) -> tuple[str, ...]:
        return ("g/averages",) if name in losses.averages_in else ()

    played = [
        Phase(
            "g/main",
            player="g",
            loss=losses.g_main,
            draw=g_draws,
            batch=g_draws.batch,
            writes=writes("g/main"),
            **shared,
        )
    ]
    if losses.path_weight:
        played.append(
            Phase(
                "g/path",
                player="g",
                loss=losses.g_path,
                draw=losses.draws(pixels=True, shrink=path_shrink),
                batch=g_draws.batch,
                every=path_every,
                touches=".*" if touch_all else PATH_TOUCHES,
                writes=("extras/path_mean", *writes("g/path")),
                **shared,
            )
        )
    played.append(
        Phase(
            "d/main",
            player="d",
            loss=losses.d_main,
            draw=d_draws,
            batch="real",
            writes=(*writes("d/main"), *observed),
            **shared,
        )
    )
    if losses.r1_gamma:
        played.append(
            Phase(
                "d/r1",
                player="d",
                loss=losses.d_r1,
                draw=losses.views("real_view"),
                batch="real",
                every=r1_every,
                touches=".*" if touch_all else R1_TOUCHES,
                writes=observed,
                **shared,
            )
        )
    return tuple(played)


def half_life_decay(
    batch: int, half_life_images: int | float, ramp_up: float | None = None
) -> Callable[[Array, Array], Array]:
    """A decay per step whose half-life is a number of images (StyleGAN2's training loop).

    Args:
        ramp_up: the half-life is at most this share of the images seen so far, so that the first
            average is a copy; None: it is constant.
    """

    def at(step: Array, items: Array) -> Array:
        del step
        half_life = jnp.asarray(half_life_images)
        if ramp_up is not None:
            half_life = jnp.minimum(half_life, items * ramp_up)
        return 0.5 ** (batch / jnp.maximum(half_life, 1e-8))

    return at


def finite_gradients(limit: float = 1e5) -> optax.GradientTransformation:
    """NaN becomes 0 and infinities `limit`, in front of the optimizer, as in the official code."""

    def clean(leaf: Array) -> Array:
        return jnp.nan_to_num(leaf, nan=0.0, posinf=limit, neginf=-limit)

    return optax.stateless(lambda updates, params: jax.tree.map(clean, updates))
