"""What the frozen convolutional networks are made of, and how their official weights get in."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jaxtyping import Array, Float

from ganjax.interop.report import Report

HIGHEST = lax.Precision.HIGHEST  # whatever the caller computes in: metrics must not depend on it

Path = tuple[str, ...]
Padding = str | Sequence[tuple[int, int]]


class FrozenNorm(nn.Module):
    """Batch normalisation by stored statistics.

    Variables: "params" {scale, bias} and "batch_stats" {mean, var}, each [c].
    """

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
        var = self.variable("batch_stats", "var", jnp.ones, shape).value
        gain = scale * lax.rsqrt(var + self.eps)
        return (x - mean) * gain + bias


class ConvNormRelu(nn.Module):
    """Convolution without bias, `FrozenNorm`, ReLU, in two or three dimensions.

    Attributes:
        kernel_size: taps along each axis; its length is the number of axes.
        padding: as in `lax.conv_general_dilated`; "SAME" is TensorFlow's.
    """

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: Padding = "VALID"
    eps: float = 1e-3

    @nn.compact
    def __call__(self, x: Float[Array, "n *space c"]) -> Float[Array, "n *space2 o"]:
        x = nn.Conv(
            self.features,
            self.kernel_size,
            self.strides,
            self.padding,
            use_bias=False,
            precision=HIGHEST,
            name="conv",
        )(x)
        return nn.relu(FrozenNorm(self.eps, name="bn")(x))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our arrays as entries of an official state dict.

    Attributes:
        path: collection and names of ours.
        names: the official names: their arrays, joined along the first axis, are ours.
        axes: transposition of the joined array to ours; None: as it is.
        shape: of ours.
    """

    path: Path
    names: tuple[str, ...]
    axes: tuple[int, ...] | None
    shape: tuple[int, ...]

    @property
    def official_shape(self) -> tuple[int, ...]:
        """Of each official array."""
        shape = list(self.shape)
        if self.axes is not None:
            for ours, theirs in enumerate(self.axes):
                shape[theirs] = self.shape[ours]
        if len(self.names) > 1:
            shape[0] //= len(self.names)
        return tuple(shape)

    def decode(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Ours from the official arrays, in the order of `names`."""
        joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return np.array(joined if self.axes is None else joined.transpose(self.axes), order="C")

    def encode(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The inverse, by official name."""
        if self.axes is not None:
            array = array.transpose(np.argsort(self.axes))
        return dict(zip(self.names, np.split(array, len(self.names)) if array.ndim else [array]))


def official_leaf(path: Path) -> str:
    """What PyTorch calls the last part of one of our paths."""
    collection, leaf = path[0], path[-1]
    if collection == "batch_stats":
        return f"running_{leaf}"
    return "weight" if leaf in ("kernel", "scale", "embedding") else leaf


def kernel_axes(path: Path, ndim: int) -> tuple[int, ...] | None:
    """From PyTorch's [out, in, *space] to [*space, in, out], for leaves called "kernel"."""
    return (*range(2, ndim), 1, 0) if path[-1] == "kernel" else None


def entries_of(
    shapes: Mapping[str, Any], names_of: Callable[[Path], Sequence[str]]
) -> tuple[Entry, ...]:
    """For each of a network's variables, where an official state dict keeps it.

    Args:
        shapes: variables, or their shapes.
        names_of: from names of ours, collection excluded and the last part already official, to
            official names.
    """
    entries = []
    for path, shape in entry_paths(shapes):
        official = (*path[1:-1], official_leaf(path))
        axes = kernel_axes(path, len(shape))
        entries.append(Entry(path, tuple(names_of(official)), axes, shape))
    return tuple(entries)


def entry_paths(shapes: Mapping[str, Any]) -> list[tuple[Path, tuple[int, ...]]]:
    """Path, collection first, and shape of each of a network's variables."""
    return [(path, tuple(leaf.shape)) for path, leaf in flatten_dict(dict(shapes)).items()]


def from_official(
    state: Mapping[str, np.ndarray],
    entries: Sequence[Entry],
    ignored: Callable[[str], bool] = lambda name: name.endswith("num_batches_tracked"),
) -> tuple[dict[str, Any], Report]:
    """Variables (NumPy arrays, floating point as float32) of a network from a state dict.

    Args:
        ignored: names that carry nothing that we keep.

    Raises:
        ValueError: entries are missing, or one has a shape that does not fit.
    """
    arrays: dict[Path, np.ndarray] = {}
    missing: list[str] = []
    for entry in entries:
        absent = [name for name in entry.names if name not in state]
        missing += absent
        if absent:
            continue
        for name in entry.names:
            if state[name].shape != entry.official_shape:
                raise ValueError(
                    f"{name} has shape {state[name].shape}, the network wants"
                    f" {entry.official_shape} for {'/'.join(entry.path)}; the file is of another"
                    " network or configuration"
                )
        array = entry.decode([np.asarray(state[name]) for name in entry.names])
        arrays[entry.path] = array if array.dtype == np.float64 else array.astype(np.float32)
    matched = {name for entry in entries for name in entry.names if name in state}
    left = sorted(set(state) - matched)
    report = Report(
        matched=tuple(sorted(matched)),
        missing=tuple(missing),
        unexpected=tuple(name for name in left if not ignored(name)),
        ignored=tuple(name for name in left if ignored(name)),
    )
    if missing:
        raise ValueError(f"the file does not hold what the network needs\n{report}")
    return unflatten_dict(arrays), report


def shapes_of(module: nn.Module, *inputs: Any, **kwargs: Any) -> dict[str, Any]:
    """Shapes of a module's variables; inputs may be `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(
        lambda *arrays: module.init(jax.random.key(0), *arrays, **kwargs), *inputs
    )
