"""How BigGAN is sampled: truncated latents, standing statistics, and its sheets of pictures."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.family import Bind, Request, Sample
from ganjax.layers.norm import standing_statistics
from ganjax.sampling import sheets, truncation
from ganjax.sampling.sheets import Sheet, Video

# Columns of a sheet when nobody asks for classes: all of a small set, the first of a large one.
COLUMNS = 10
STEPS = 9  # of an interpolation, both ends included


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling of a generator.

    Attributes:
      generator: the module.
      standing: passes for standing statistics (BigGAN, section 4.2); 0 keeps running averages.
      standing_batch: samples of each of these passes: the training batch.
    """

    generator: nn.Module
    standing: int
    standing_batch: int

    def draws(self, key: Any, indices: Any, request: Request) -> dict[str, Array]:
        """Latents and labels of samples ``indices``; labels go round the asked classes."""
        classes = jnp.asarray(request.classes or range(self.generator.classes), jnp.int32)
        return {
            "z": truncation.latents_at(key, indices, self.generator.latent_dim, request.truncation),
            "label": classes[jnp.asarray(indices) % len(classes)],
        }

    def sample(self, variables: Mapping[str, Any], draws: Mapping[str, Array]) -> Array:
        """Images [n, h, w, c] in [-1, 1], float32. Labels may be mixtures Float[n, classes]."""
        images: Any = self.generator.apply(variables, draws["z"], draws["label"], train=False)
        return images.astype(jnp.float32)

    def ready(self, variables: Mapping[str, Any], key: Any, request: Request) -> dict[str, Any]:
        """Variables whose BatchNorm statistics are the mean over ``standing`` training passes.

        The passes see latents truncated as asked, and all classes.
        """
        if not self.standing:
            return dict(variables)

        def one_pass(variables, number):
            return self._training_pass(variables, key, number, request.truncation)

        return standing_statistics(one_pass, variables, jnp.arange(self.standing))

    # Jitted here, so that whoever asks for statistics again does not compile again.
    @functools.partial(jax.jit, static_argnames=("self", "truncation"))
    def _training_pass(
        self, variables: Mapping[str, Any], key: Any, number: Any, truncation: float | None
    ) -> Mapping[str, Any]:
        """What changes in a pass in training mode over ``standing_batch`` new samples."""
        indices = number * self.standing_batch + jnp.arange(self.standing_batch)
        draws = self.draws(key, indices, Request(truncation=truncation))
        _, changed = self.generator.apply(
            variables,
            draws["z"],
            draws["label"],
            train=True,
            mutable=["batch_moments", "batch_stats", "spectral"],
        )
        return changed

    def sheets(self) -> dict[str, Callable[[Bind, Any, Request], Sheet]]:
        """``grid``, ``truncation``, ``latents`` and ``classes``."""
        return {
            "grid": self._grid,
            "truncation": self._truncation,
            "latents": self._latents,
            "classes": self._classes,
        }

    def videos(self) -> dict[str, Callable[[Bind, Any, Request], Video]]:
        """``z``."""
        return {"z": self._z}

    def _grid(self, bind: Bind, key: Any, request: Request) -> Sheet:
        columns, names = self._columns_named(request)
        return sheets.class_grid(
            self._labelled(bind(request.truncation)),
            key,
            columns,
            request.rows,
            self.generator.latent_dim,
            truncation_threshold=request.truncation,
            shared=False,
            names=names,
        )

    def _truncation(self, bind: Bind, key: Any, request: Request) -> Sheet:
        return sheets.truncation_sheet(
            lambda threshold: self._labelled(bind(threshold)),
            key,
            self._columns(request),
            min(request.rows, 2),
            self.generator.latent_dim,
            names=request.names,
        )

    def _latents(self, bind: Bind, key: Any, request: Request) -> Sheet:
        return sheets.latent_interpolation(
            self._labelled(bind(request.truncation)),
            key,
            self._columns(request),
            STEPS,
            self.generator.latent_dim,
            truncation_threshold=request.truncation,
            names=request.names,
        )

    def _classes(self, bind: Bind, key: Any, request: Request) -> Sheet:
        columns = self._columns(request)
        return sheets.class_interpolation(
            self._labelled(bind(request.truncation)),
            key,
            list(zip(columns, columns[1:] + columns[:1])),
            STEPS,
            self.generator.latent_dim,
            self.generator.classes,
            truncation_threshold=request.truncation,
            names=request.names,
        )

    def _z(self, bind: Bind, key: Any, request: Request) -> Video:
        columns, names = self._columns_named(request)
        return sheets.latent_cycle(
            self._labelled(bind(request.truncation)),
            key,
            columns,
            request.rows,
            self.generator.latent_dim,
            frames=request.frames,
            anchors=request.anchors,
            truncation_threshold=request.truncation,
            column_titles=sheets.titles(columns, names),
        )

    def _columns_named(self, request: Request) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Each column's class, and the names of all; data without classes has columns, too."""
        if self.generator.classes == 1:
            return (0,) * COLUMNS, ("",)
        return self._columns(request), request.names

    def _columns(self, request: Request) -> tuple[int, ...]:
        return request.classes or tuple(range(min(self.generator.classes, COLUMNS)))

    @staticmethod
    def _labelled(sample: Sample) -> Callable[[Float[Array, "n d"], Array], Array]:
        return lambda z, label: sample({"z": z, "label": label})
