"""What the frozen convolutional networks are made of, and how their official weights get in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import lax
from jaxtyping import Array, Float

from ganjax.interop.entries import Entry, Path, complete, fill, report_of
from ganjax.interop.report import Report

HIGHEST = lax.Precision.HIGHEST  # whatever the caller computes in: metrics must not depend on it

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


def moved(
    path: Path, names: Sequence[str], axes: tuple[int, ...] | None, shape: tuple[int, ...]
) -> Entry:
    """One of our arrays as official ones that are joined along their first axis and transposed.

    Args:
        path: collection and names of ours.
        axes: transposition of the joined array to ours; None: as it is.
        shape: of ours.
    """
    inverse = None if axes is None else tuple(int(axis) for axis in np.argsort(axes))
    official = list(shape) if inverse is None else [shape[axis] for axis in inverse]
    if len(names) > 1:
        official[0] //= len(names)

    def decode(arrays: list[np.ndarray]) -> np.ndarray:
        joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        joined = joined if joined.dtype == np.float64 else joined.astype(np.float32)
        return joined if axes is None else joined.transpose(axes)

    def encode(array: np.ndarray) -> list[np.ndarray]:
        array = array if inverse is None else array.transpose(inverse)
        return np.split(array, len(names)) if len(names) > 1 else [array]

    return Entry(path, tuple(names), tuple(official), decode, encode)


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
        entries.append(moved(path, names_of(official), axes, shape))
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
    filled, missing = fill(state, entries)
    report = report_of(state, filled, missing, ignored)
    return complete(filled, report, None, None), report


def shapes_of(module: nn.Module, *inputs: Any, **kwargs: Any) -> dict[str, Any]:
    """Shapes of a module's variables; inputs may be `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(
        lambda *arrays: module.init(jax.random.key(0), *arrays, **kwargs), *inputs
    )
