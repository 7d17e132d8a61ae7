"""How StyleGAN2 is sampled: latents, truncated towards the mean w, and its sheets of pictures."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ganjax.adversarial.augment import Augment
from ganjax.families.stylegan2.networks import StyleGenerator
from ganjax.family import Bind, Request
from ganjax.sampling import sheets, truncation
from ganjax.sampling.sheets import Sheet, Video

COLUMNS = 10  # of a sheet, when nobody asks for classes
MOVING = 4  # columns of a video without classes: players refuse frames that are too wide
STEPS = 9  # of an interpolation, both ends included
COARSE = 4  # layers whose styles are coarse: up to 8x8
PSIS = (1.0, 0.7, 0.5, 0.0)  # of the truncation sheet; 0 is the mean image
PROBABILITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the augment sheet
MEAN = 1000  # latents whose w is averaged for the mean image of a class

Draw = Callable[[Bind, Any, Request], Sheet]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling of a generator, its noise being the stored one.

    Attributes:
        generator: the module.
        truncation: distance from the mean w that is kept where nobody asks for another.
    """

    generator: StyleGenerator
    truncation: float = 1.0

    def draws(self, key: Any, indices: Any, request: Request) -> dict[str, Array]:
        """Latents, truncation and labels of samples ``indices``."""
        n = jnp.asarray(indices).shape[0]
        classes = jnp.asarray(request.classes or range(max(self.generator.classes, 1)), jnp.int32)
        return {
            "z": truncation.latents_at(key, indices, self.generator.latent_dim),
            "truncation": jnp.full((n,), self._kept(request), jnp.float32),
            "label": classes[jnp.asarray(indices) % len(classes)],
        }

    def sample(self, variables: Mapping[str, Any], draws: Mapping[str, Array]) -> Array:
        """Images [n, h, w, c], clipped to [-1, 1], float32.

        Layers from ``draws["cutoff"]`` on have the styles of ``draws["fine_z"]`` and of the class
        ``draws["fine_label"]``, if there are any.
        With ``draws["weights"]`` [n, k] each image has k latents, ``draws["z"]`` [n, k, d], whose w
        are mixed so; weights that sum to 1 are truncated as one w is. Labels may be mixtures
        Float[n, classes].
        """
        generator = self.generator

        def styles(z: Array, repeats: int = 1, labels: str = "label") -> Array:
            label, kept = (jnp.repeat(draws[name], repeats, 0) for name in (labels, "truncation"))
            found: Any = generator.apply(variables, z, label, kept, method="styles")
            return found

        if "weights" in draws:
            n, k = draws["weights"].shape
            each = styles(draws["z"].reshape(n * k, -1), repeats=k)
            ws = jnp.einsum("nk,nklw->nlw", draws["weights"], each.reshape(n, k, *each.shape[1:]))
        else:
            ws = styles(draws["z"])
        if "fine_z" in draws:
            coarse = jnp.arange(generator.num_ws)[:, None] < draws["cutoff"][:, None, None]
            ws = jnp.where(coarse, ws, styles(draws["fine_z"], labels="fine_label"))
        images = self.synthesize(variables, ws, draws)
        return jnp.clip(images, -1.0, 1.0).astype(jnp.float32)

    def synthesize(
        self, variables: Mapping[str, Any], ws: Array, draws: Mapping[str, Array]
    ) -> Array:
        """Images from the w of each layer."""
        del draws
        images: Any = self.generator.apply(variables, ws, method="synthesize")
        return images

    def sheets(self) -> dict[str, Draw]:
        """``grid``, ``truncation``, ``mixing``, ``latents`` and ``mean``."""
        return {
            "grid": self._grid,
            "truncation": self._truncation,
            "mixing": self._mixing,
            "latents": self._latents,
            "mean": self._mean,
        }

    def videos(self) -> dict[str, Callable[[Bind, Any, Request], Video]]:
        """``z`` and ``w``: where the path is smooth."""
        return {"z": self._moving_z, "w": self._moving_w}

    def _grid(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """One class a column, or none; every image has its own latent."""
        columns = self._columns(request)
        z = self._z(key, request.rows * len(columns))
        images = sheets.in_chunks(
            self._simple(bind, request), z, np.tile(_int32(columns), request.rows)
        )
        return Sheet(images, len(columns), self._titles(columns, request))

    def _truncation(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """The same latents in all rows, ever closer to the mean w (StyleGAN, figure 8)."""
        columns = self._columns(request)
        z = self._z(key, len(columns))
        blocks = [
            sheets.in_chunks(
                self._simple(bind, dataclasses.replace(request, truncation=psi)),
                z,
                _int32(columns),
            )
            for psi in PSIS
        ]
        titles = tuple(f"{psi:g}" for psi in PSIS)
        return Sheet(np.concatenate(blocks), len(columns), self._titles(columns, request), titles)

    def _mixing(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """Coarse styles of a row's sample, fine ones of a column's (StyleGAN, figure 3).

        The first column and row show the sources, each of a class, the corner the mean image.
        """
        columns, rows = self._columns(request), request.rows
        across, down = len(columns) + 1, rows + 1
        down_classes = tuple(columns[index % len(columns)] for index in range(rows))
        # The source of column 0 is the row's own, that of row 0 the column's own.
        fine = np.asarray(self._z(key, across + rows))
        coarse = np.concatenate([fine[:1], fine[across:]])
        row, column = np.divmod(np.arange(down * across), across)
        first = np.where(row[:, None] > 0, coarse[row], fine[column])
        second = np.where(column[:, None] > 0, fine[column], coarse[row])
        of_row, of_column = _int32((0, *down_classes))[row], _int32((0, *columns))[column]
        label = np.where(row > 0, of_row, of_column)
        fine_label = np.where(column > 0, of_column, of_row)
        kept = np.full(down * across, self._kept(request), np.float32)
        kept[0] = 0.0
        cutoff = min(self.generator.num_ws // 2, COARSE)
        sample = bind(request.truncation)

        def mixed(z: Array, fine_z: Array, kept: Array, label: Array, fine_label: Array) -> Array:
            draws = {"z": z, "fine_z": fine_z, "cutoff": jnp.full(len(z), cutoff)}
            draws |= {"truncation": kept, "label": label, "fine_label": fine_label}
            return sample(draws)

        images = sheets.in_chunks(mixed, first, second, kept, label, fine_label)
        titles, row_titles = (
            ("", *self._titles(classes, request)) if self.generator.classes else ()
            for classes in (columns, down_classes)
        )
        return Sheet(images, across, titles, row_titles)

    def _latents(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """A row from one latent to another, the class fixed."""
        columns = self._columns(request)[: request.rows]
        sheet = sheets.latent_interpolation(
            self._simple(bind, request),
            key,
            columns,
            STEPS,
            self.generator.latent_dim,
            names=request.names,
        )
        return dataclasses.replace(sheet, row_titles=self._titles(columns, request))

    def _mean(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """The image of the mean w, and of each class's own mean w, which no network stores."""
        classes = self._columns(request) if self.generator.classes else ()
        # The mean w is the same for all classes: whose it is truncated from does not matter.
        kept = np.array([0.0] + [1.0] * len(classes), np.float32)
        z = jnp.broadcast_to(self._z(key, MEAN), (len(kept), MEAN, self.generator.latent_dim))
        sample = bind(request.truncation)

        def mean(z: Array, kept: Array, label: Array) -> Array:
            weights = jnp.full(z.shape[:2], 1 / MEAN)
            return sample({"z": z, "weights": weights, "truncation": kept, "label": label})

        images = sheets.in_chunks(mean, z, kept, _int32((0, *classes)), chunk=4)
        titles = ("all", *self._titles(classes, request)) if classes else ()
        return Sheet(images, len(kept), titles)

    def _moving_z(self, bind: Bind, key: Any, request: Request) -> Video:
        """z goes round on the sphere, where the mapping network's input lies."""
        columns = self._columns(request, MOVING)
        return sheets.latent_cycle(
            self._simple(bind, request),
            key,
            columns,
            request.rows,
            self.generator.latent_dim,
            frames=request.frames,
            anchors=request.anchors,
            column_titles=self._titles(columns, request),
        )

    def _moving_w(self, bind: Bind, key: Any, request: Request) -> Video:
        """w goes round, through the w of the latents that `_moving_z` passes."""
        columns, k = self._columns(request, MOVING), request.anchors
        labels = np.tile(_int32(columns), request.rows)
        kept, sample = self._kept(request), bind(request.truncation)

        def blend(weights: np.ndarray) -> Callable[[Array, Array], Array]:
            return lambda z, label: sample(
                {
                    "z": z,
                    "weights": jnp.broadcast_to(weights, z.shape[:2]),
                    "truncation": jnp.full(len(z), kept, jnp.float32),
                    "label": label,
                }
            )

        anchors = self._z(key, len(labels) * k).reshape(len(labels), k, -1)
        titles = self._titles(columns, request)
        return sheets.cycle(blend, anchors, labels, request.frames, len(columns), titles)

    def _columns(self, request: Request, unconditional: int = COLUMNS) -> tuple[int, ...]:
        """The class of each column; class 0 in an unconditional sheet, where it means nothing."""
        if not self.generator.classes:
            return (0,) * unconditional
        return request.classes or tuple(range(min(self.generator.classes, COLUMNS)))

    def _titles(self, columns: tuple[int, ...], request: Request) -> tuple[str, ...]:
        if not self.generator.classes:
            return ()
        return sheets.titles(columns, request.names)

    def _kept(self, request: Request) -> float:
        return self.truncation if request.truncation is None else request.truncation

    def _z(self, key: Any, n: int) -> Array:
        return truncation.latents(key, 0, n, self.generator.latent_dim)

    def _simple(self, bind: Bind, request: Request) -> Callable[[Array, Array], Array]:
        kept, sample = self._kept(request), bind(request.truncation)
        return lambda z, label: sample(
            {"z": z, "truncation": jnp.full(len(z), kept, jnp.float32), "label": label}
        )


def absent(name: str, wanting: str) -> Draw:
    """The sheet of a run that lacks what it shows.

    Args:
        wanting: what it lacks, and what gives it.
    """

    def draw(bind: Bind, key: Any, request: Request) -> Sheet:
        raise ValueError(f"There is no sheet {name!r} of this run, which has no {wanting}.")

    return draw


def augmented(grid: Draw, pipe: Augment) -> Draw:
    """The sheet ``augment``: samples of the grid as D would see them, p growing to the right.

    A row's random numbers are the same throughout, so its gates open one after the other.
    """

    def draw(bind: Bind, key: Any, request: Request) -> Sheet:
        images = jnp.asarray(grid(bind, key, request).images[: request.rows])
        draws = pipe.draw(key, images.shape)
        seen = jax.jit(pipe.__call__)
        columns = [seen(images, draws, jnp.float32(p)) for p in PROBABILITIES]
        shown = jnp.clip(jnp.stack(columns, axis=1), -1, 1).reshape(-1, *images.shape[1:])
        titles = tuple(f"p = {p:g}" for p in PROBABILITIES)
        return Sheet(np.asarray(shown), len(columns), titles)

    return draw


def _int32(numbers: Sequence[int]) -> np.ndarray:
    return np.asarray(numbers, np.int32)
