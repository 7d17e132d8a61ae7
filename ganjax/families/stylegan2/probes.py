"""What metrics look at beside samples: steps between latents (StyleGAN, section 4.1), and motions.

A generator is equivariant to a motion if moving what it starts from moves its images (StyleGAN3,
section 2). StyleGAN3's input has a transform for that; StyleGAN2 has a learned constant of 4x4,
which is moved here, though nothing in its official code does so.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.families.stylegan2.networks import StyleGenerator
from ganjax.layers.motion import (
    shift,
    shift_whole,
    shifted,
    transformed,
    turn,
    turn_spectrum,
    turned,
)
from ganjax.metrics.path_length import endpoints, lerp, slerp

SPACES = ("w", "z")


@dataclasses.dataclass(frozen=True)
class Probes:
    """Pairs of images of a generator, computed in float32 as NVIDIA's metrics do.

    Attributes:
        generator: the module.
    """

    generator: StyleGenerator

    def by_name(self) -> dict[str, Callable[..., dict[str, Array]]]:
        """``path``, ``translation`` and ``rotation``."""
        return {"path": self.path, "translation": self.translation, "rotation": self.rotation}

    def path(
        self,
        variables: Mapping[str, Any],
        key: Any,
        indices: Int[Array, "n"],
        labels: Int[Array, "n"],
        *,
        space: str,
        sampling: str,
        epsilon: float,
    ) -> dict[str, Array]:
        """Both ends of a step of `epsilon` between two latents, with the same noise.

        NOTE: each pair has noise of its own; the official code draws one noise for a batch.

        Args:
            space: of the straight line ("w") or the great circle ("z").
            sampling: steps begin at the first latent ("end") or anywhere ("full").
        """
        if space not in SPACES:
            raise ValueError(f"space={space!r}; set one of {SPACES}")
        generator = self.generator.clone(dtype=None)
        first, second = jax.random.split(key)
        t, begin, end = endpoints(first, indices, generator.latent_dim, sampling)

        def styles(z: Array) -> Array:
            found: Any = generator.apply(variables, z, labels, method="styles")
            return found

        if space == "w":
            a, b = styles(begin), styles(end)
            both = [lerp(a, b, t), lerp(a, b, t + epsilon)]
        else:
            both = [styles(slerp(begin, end, t)), styles(slerp(begin, end, t + epsilon))]
        noise = jax.vmap(functools.partial(self._noise, second))(indices)
        # Neighbours, so that both ends of a pair stay on its device.
        ws, noise = jax.tree.map(
            lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]),
            (both[0], noise),
            (both[1], noise),
        )
        inputs = (ws, noise) if noise else (ws,)
        found: Any = generator.apply(variables, *inputs, method="synthesize")
        images = found.reshape(-1, 2, *found.shape[1:])
        return {"one": images[:, 0], "other": images[:, 1]}

    def translation(
        self,
        variables: Mapping[str, Any],
        key: Any,
        indices: Int[Array, "n"],
        labels: Int[Array, "n"],
        *,
        reach: float,
        whole: bool,
    ) -> dict[str, Array]:
        """Images whose start was shifted, and images shifted (StyleGAN3, appendices E.1 and E.2).

        NOTE: each pair has a shift and a noise of its own; the official code draws one for 4.

        Args:
            reach: shifts go up to this share of the width, in both directions.
            whole: by whole pixels.
        """
        size = self.generator.resolution
        share = self._uniform(key, indices, 2) * reach
        if whole:
            share = jnp.round(share * size) / size
        still, moved = self._both(
            variables, key, indices, labels, shifted(share[:, 1], share[:, 0])
        )
        pixels = share * size
        if whole:
            wanted, mask = shift_whole(still, jnp.round(pixels).astype(jnp.int32))
        else:
            wanted, mask = shift(still, pixels)
        return {"one": wanted, "other": moved, "mask": mask}

    def rotation(
        self,
        variables: Mapping[str, Any],
        key: Any,
        indices: Int[Array, "n"],
        labels: Int[Array, "n"],
        *,
        reach: float,
    ) -> dict[str, Array]:
        """Images whose start was turned, and images turned (StyleGAN3, appendix E.3).

        NOTE: as of `translation`.

        Args:
            reach: turns go up to this share of a half turn, in both directions.
        """
        angle = self._uniform(key, indices, 1)[:, 0] * reach * jnp.pi
        still, moved = self._both(variables, key, indices, labels, turned(-angle))
        wanted, mask = turn(still, angle)
        seen, there = turn_spectrum(moved, angle)
        return {"one": wanted, "other": seen, "mask": mask * there}

    def render(
        self,
        variables: Mapping[str, Any],
        ws: Float[Array, "n layers d"],
        noise: Mapping[str, Array],
        transform: Float[Array, "n 3 3"],
    ) -> Float[Array, "n h w c"]:
        """Images whose start was transformed, each on its own: here the learned constant."""
        generator = self.generator.clone(dtype=None)

        @jax.vmap
        def one(w: Array, noise: Any, matrix: Array) -> Array:
            params = variables["params"]
            synthesis = params["synthesis"]
            first = dict(synthesis["b4"], const=transformed(synthesis["b4"]["const"], matrix))
            held = {**variables, "params": {**params, "synthesis": {**synthesis, "b4": first}}}
            inputs = jax.tree.map(lambda leaf: leaf[None], (w, noise) if noise else (w,))
            found: Any = generator.apply(held, *inputs, method="synthesize")
            return found[0]

        return one(ws, noise, transform)

    def _both(
        self, variables: Any, key: Any, indices: Array, labels: Array, transform: Array
    ) -> tuple[Array, Array]:
        """Images of the same latents and noise, as they are and under a transform."""
        generator = self.generator.clone(dtype=None)
        first, second = jax.random.split(key)
        _, z, _ = endpoints(first, indices, generator.latent_dim)
        with jax.default_matmul_precision("highest"):
            ws = generator.apply(variables, z, labels, method="styles")
            noise = jax.vmap(functools.partial(self._noise, second))(indices)
            still = jnp.broadcast_to(jnp.eye(3, dtype=ws.dtype), transform.shape)
            image, moved = (self.render(variables, ws, noise, t) for t in (still, transform))
            return image, moved

    def _uniform(self, key: Any, indices: Array, count: int) -> Array:
        """[n, count] in [-1, 1)."""
        own = jax.random.fold_in(key, 2)  # beside those of latents and noise

        def draw(index: Array) -> Array:
            return jax.random.uniform(jax.random.fold_in(own, index), (count,), minval=-1.0)

        return jax.vmap(draw)(indices)

    def _noise(self, key: Any, index: Array) -> dict[str, Array]:
        key = jax.random.fold_in(key, index)
        return {
            name: jax.random.normal(jax.random.fold_in(key, number), (*shape, 1))
            for number, (name, shape) in enumerate(self.generator.noise_shapes().items())
        }
