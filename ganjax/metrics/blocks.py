"""What metrics over all pairs of features share: checks, blocks of one shape, and their devices."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Shaped

from ganjax.parallel.mesh import batch_spec, make_mesh, replicated

BLOCK = 2048  # rows of a block; a block of pairs is its square
CHECKED = 4096  # rows looked at together


def check_features(what: str, features: Shaped[np.ndarray, "..."], at_least: int = 1) -> None:
    """Raise a ValueError unless these are finite vectors, and enough of them.

    Args:
      what: they are, for the message: "real features".
      features: [n, d]; a `numpy.memmap` is read `CHECKED` rows at a time.
    """
    if features.ndim != 2 or not features.shape[1]:
        raise ValueError(
            f"{what} have shape {features.shape}; [n, d] is expected, one vector for each sample"
        )
    if len(features) < at_least:
        raise ValueError(
            f"there are {len(features)} {what}; at least {at_least} are needed: give more samples"
        )
    for start in range(0, len(features), CHECKED):
        finite = np.isfinite(features[start : start + CHECKED]).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{what} of item {start + int(np.argmin(finite))} are not finite; look at its"
                " image, and at the weights of the feature network"
            )


def check_pair(
    what_a: str,
    a: Shaped[np.ndarray, "..."],
    what_b: str,
    b: Shaped[np.ndarray, "..."],
    at_least: int = 1,
) -> None:
    """`check_features` of both, which must also be of one width."""
    check_features(what_a, a, at_least)
    check_features(what_b, b, at_least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{what_a} have width {a.shape[1]} and {what_b} {b.shape[1]}; take both from the same"
            " network and layer"
        )


@dataclasses.dataclass(frozen=True)
class View:
    """What features are shifted and scaled by on their way to the devices: (x - centre) / scale."""

    centre: Float[np.ndarray, "d"] | float = 0.0
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of a set, padded with zeros to the shape that all blocks of the set have.

    Attributes:
      start: the first row's place in the set.
      count: rows that are not padding.
      values: float32 on the devices.
    """

    start: int
    count: int
    values: Float[Array, "b d"]

    @property
    def rows(self) -> slice:
        """Where these rows lie in the set."""
        return slice(self.start, self.start + self.count)


class Devices:
    """Puts blocks on the devices of a mesh: rows over all of them, columns whole on each.

    Under several processes each of them has all features, and reads of them what its devices take.

    Args:
      mesh: None is one device of this process.
      block: rows of a block, rounded up to a multiple of the devices.
    """

    def __init__(self, mesh: Mesh | None, block: int = BLOCK):
        if block < 1:
            raise ValueError(f"block={block}; a positive number of rows is wanted, e.g. {BLOCK}")
        self.mesh = mesh or make_mesh({"data": 1}, jax.local_devices()[:1])
        self._block = block
        self._split = NamedSharding(self.mesh, batch_spec(self.mesh, leading=0))
        self.whole = replicated(self.mesh)

    def size(self, n: int) -> int:
        """Rows of the blocks of a set of n."""
        devices = self.mesh.size
        return -(-min(self._block, n) // devices) * devices

    def rows(self, features: np.ndarray, view: View = View()) -> Iterator[Block]:
        """The blocks of a set, split over the devices."""
        return self._blocks(features, view, self._split)

    def columns(self, features: np.ndarray, view: View = View()) -> Iterator[Block]:
        """The blocks of a set, each whole on every device."""
        return self._blocks(features, view, self.whole)

    def put(self, values: np.ndarray) -> Array:
        """An array that every device has whole."""
        return self._place(values, self.whole)

    def _blocks(self, features: np.ndarray, view: View, sharding: NamedSharding) -> Iterator[Block]:
        size = self.size(len(features))
        for start in range(0, len(features), size):
            part = np.asarray(features[start : start + size], np.float64)
            padded = np.zeros((size, features.shape[1]), np.float32)
            padded[: len(part)] = (part - view.centre) / view.scale
            yield Block(start, len(part), self._place(padded, sharding))

    def _place(self, values: np.ndarray, sharding: NamedSharding) -> Array:
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
