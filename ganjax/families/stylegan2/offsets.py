"""What the offsets of the modulated transformation module do: figure 4 of its paper, and a map."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Float

from ganjax.families.stylegan2.sampling import COLUMNS, Sampling, absent
from ganjax.family import Bind, Request
from ganjax.layers.mtm import OffsetField
from ganjax.sampling import sheets
from ganjax.sampling.sheets import Sheet

ROWS = ("with offsets", "without", "offsets")


@dataclasses.dataclass(frozen=True)
class OffsetSampling:
    """A sampling, and one sheet more, for a generator that has the module in `conv_at`.

    Attributes:
        sampling: StyleGAN2's, or one like it.
    """

    sampling: Sampling

    def sample(self, variables: Mapping[str, Any], draws: Mapping[str, Array]) -> Array:
        """As `Sampling.sample`.

        With ``draws["still"]`` all offsets are zero, and masks as they are; with ``draws["map"]``
        it is a picture of the offsets: see `offset_map`.
        """
        if "still" in draws:
            generator = self.sampling.generator
            still = {
                size: functools.partial(conv, strength=0.0)
                for size, conv in generator.conv_at.items()
            }
            other = dataclasses.replace(
                self.sampling, generator=generator.clone(conv_at=FrozenDict(still))
            )
            return other.sample(variables, draws)
        if "map" in draws:
            return self._map(variables, draws)
        return self.sampling.sample(variables, draws)

    def sheets(self) -> dict[str, Callable[[Bind, Any, Request], Sheet]]:
        """Those of the sampling and ``offsets``."""
        without = absent("offsets", "offsets: train with --config.model.mtm='(\"low\",)'")
        own = self._offsets if self.sampling.generator.conv_at else without
        return self.sampling.sheets() | {"offsets": own}

    def _offsets(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """The same latents with and without offsets, and the offsets (MTM, figure 4)."""
        sample = bind(request.truncation)
        draws = self.sampling.draws(key, jnp.arange(COLUMNS), request)
        switch = jnp.ones(COLUMNS)
        rows = (sample(draws | more) for more in ({}, {"still": switch}, {"map": switch}))
        images = [np.asarray(row, np.float32) for row in rows]
        coloured = [np.broadcast_to(row, (*row.shape[:3], 3)) for row in images]
        classes = np.asarray(draws["label"]).tolist() if self.sampling.generator.classes else ()
        titles = sheets.titles(classes, request.names)
        return Sheet(np.concatenate(coloured), COLUMNS, titles, ROWS)

    def _map(self, variables: Mapping[str, Any], draws: Mapping[str, Array]) -> Array:
        generator = self.sampling.generator
        latents = draws["z"], draws["label"], draws["truncation"]
        ws = generator.apply(variables, *latents, method="styles")
        _, kept = generator.apply(
            variables,
            ws,
            method="synthesize",
            capture_intermediates=lambda module, _: isinstance(module, OffsetField),
            mutable=["intermediates"],
        )
        found = jax.tree.leaves(kept["intermediates"], is_leaf=lambda leaf: isinstance(leaf, tuple))
        fields = [field for calls in found for field in calls]
        offsets, mask = max(fields, key=lambda field: field[1].shape[1])
        return offset_map(offsets, mask, generator.resolution)


def offset_map(
    offsets: Float[Array, "n h w taps 2"], mask: Float[Array, "n h w taps"], pixels: int
) -> Float[Array, "n pixels pixels 3"]:
    """Where each place looks, as a colour: its hue the direction, its brightness how far.

    Taps are averaged by their mask. Red is to the right, and on by yellow (down, right), green,
    cyan (left) to blue; the brightest is the farthest of all images.
    """
    move = jnp.sum(offsets * mask[..., None], axis=3) / jnp.sum(mask, axis=3)[..., None]
    turn = jnp.arctan2(move[..., 0], move[..., 1]) * (3 / jnp.pi)  # sixths of a turn
    length = jnp.linalg.norm(move, axis=-1)
    length = length / jnp.maximum(jnp.max(length), jnp.finfo(length.dtype).tiny)
    place = (turn[..., None] + jnp.array([5.0, 3.0, 1.0])) % 6
    colour = 1 - jnp.clip(jnp.minimum(place, 4 - place), 0, 1)
    image = 2 * length[..., None] * colour - 1
    return jax.image.resize(image, (len(image), pixels, pixels, 3), "nearest")
