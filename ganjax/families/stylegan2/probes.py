"""What metrics look at beside samples: steps between latents (StyleGAN, section 4.1)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ganjax.families.stylegan2.networks import StyleGenerator
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
        """``path``."""
        return {"path": self.path}

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

    def _noise(self, key: Any, index: Array) -> dict[str, Array]:
        key = jax.random.fold_in(key, index)
        return {
            name: jax.random.normal(jax.random.fold_in(key, number), (*shape, 1))
            for number, (name, shape) in enumerate(self.generator.noise_shapes().items())
        }
