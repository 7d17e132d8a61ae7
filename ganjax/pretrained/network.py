"""A frozen network with its weights, and how it is called."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from ganjax.interop.entries import Entry, Path
from ganjax.interop.report import Report
from ganjax.pretrained.blocks import from_official, shapes_of

Shapes = Mapping[str, Any]
State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a network is, apart from its weights.

    Attributes:
        module: from prepared inputs to a dictionary of features; "params" and "batch_stats" only.
        prepare: from images or clips as people have them to the module's input.
        features: names of all features.
        examples: shapes and types of prepared inputs.
        entries: from the shapes of the variables and a state dict to the map between the two.
        adapt: what happens to an official state dict first.
    """

    module: nn.Module
    prepare: Callable[[Array], Array]
    features: tuple[str, ...]
    examples: tuple[jax.ShapeDtypeStruct, ...]
    entries: Callable[[Shapes, State], Sequence[Entry]]
    adapt: Callable[[State], State] = lambda state: state

    def from_official(self, state: State) -> tuple[dict[str, Any], Report]:
        """Variables from an official state dict.

        Raises:
            ValueError: entries are missing or have other shapes.
        """
        shapes = shapes_of(self.module, *self.examples)
        state = self.adapt(state)
        return from_official(state, self.entries(shapes, state))


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network with weights: `network(images)` gives features by name.

    Attributes:
        name: in the catalog.
        variables: "params" and, where it has batch normalisation, "batch_stats".
        sha256: of the file that the weights came from: it belongs into every record.
    """

    name: str
    kind: Kind
    variables: Mapping[str, Any]
    sha256: str = ""

    def __call__(
        self, images: Num[Array | np.ndarray, "n ..."], features: Sequence[str] | None = None
    ) -> dict[str, Float[Array, "n _"]]:
        """Compiles once for each batch size, whatever the size of the images.

        Args:
            images: as the kind's `prepare` takes them.
            features: names of those wanted, others are not computed; None: all.

        Raises:
            ValueError: an unknown feature; images of another rank or number of channels.
        """
        images = self.checked(jnp.asarray(images))
        prepared = _prepare(self.kind.prepare, images)
        return _apply(self.kind.module, self.variables, prepared, self.wanted(features))

    def apply(
        self, variables: Mapping[str, Any], images: Array, features: Sequence[str] | None = None
    ) -> dict[str, Float[Array, "n _"]]:
        """As calling it, for use inside of a compiled function, and differentiable."""
        prepared = self.kind.prepare(self.checked(images))
        return _apply_module(self.kind.module, variables, prepared, self.wanted(features))

    def placed(self, sharding: jax.sharding.Sharding) -> "FeatureNetwork":
        """The same with its weights laid out so, mostly replicated over a mesh.

        Otherwise images that are split over devices bring the weights after them at every call.
        """
        host = jax.tree.map(np.asarray, self.variables)
        return dataclasses.replace(self, variables=jax.device_put(host, sharding))

    def checked(self, images: Array) -> Array:
        """The images, if they are RGB images, or RGB clips where the network takes clips."""
        rank = len(self.kind.examples[0].shape)
        if images.ndim != rank or images.shape[-1] != 3:
            what = "images [n, h, w, 3]" if rank == 4 else "clips [n, t, h, w, 3]"
            raise ValueError(
                f"{self.name} takes RGB {what} in 0..255, got the shape {images.shape}; repeat grey"
                " three times, move channels last, add the axis of the batch"
            )
        return images

    def wanted(self, features: Sequence[str] | None) -> tuple[str, ...]:
        """The names, checked."""
        for name in features or ():
            if name not in self.kind.features:
                raise ValueError(
                    f"{self.name} has no feature {name!r}; it has {', '.join(self.kind.features)}"
                )
        return self.kind.features if features is None else tuple(features)


def _prepare_images(prepare: Callable[[Array], Array], images: Array) -> Array:
    return prepare(images)


def _apply_module(
    module: nn.Module, variables: Mapping[str, Any], prepared: Array, features: tuple[str, ...]
) -> dict[str, Array]:
    found = module.apply(variables, prepared)
    assert isinstance(found, dict), "a feature network gives features by name"
    return {name: found[name] for name in features}


_prepare = jax.jit(_prepare_images, static_argnums=0)
_apply = jax.jit(_apply_module, static_argnums=(0, 3))


def dotted(path: Path) -> tuple[str, ...]:
    """`Mixed_5b.branch1x1.conv.weight` for its parts."""
    return (".".join(path),)
