"""Maps of the official PyTorch state dicts (ajbrock/BigGAN-PyTorch) to our variables and back.

Names differ by a rule, layouts by transpositions:

    blocks.0.0.conv1.weight [out, in, h, w]     params    blocks_0_0/conv1/kernel [h, w, in, out]
    blocks.0.0.bn1.gain.weight [out, in]        params    blocks_0_0/bn1/gain/kernel [in, out]
    shared.weight [classes, d]                  params    shared/embedding [classes, d]
    blocks.0.0.conv1.u0 [1, out], sv0 [1]       spectral  blocks_0_0/conv1/u [1, out], sigma [1]
    blocks.0.0.bn1.stored_mean [c]              batch_stats  blocks_0_0/bn1/mean [c]
    blocks.0.0.bn1.bn.stored_mean               the same, of models trained with --mybn
    blocks.0.0.bn1.bn.running_mean              the same, of models trained with --cross_replica
    output_layer.0, output_layer.2              output_norm, output_conv

The generator's first dense layer counts its outputs as [c, h, w] there and as [h, w, c] here.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from ganjax.families.biggan.networks import example_inputs
from ganjax.interop import entries as interop
from ganjax.interop.entries import Entry, Path, State, plain
from ganjax.interop.report import Report
from ganjax.interop.weights import Weights

FIELDS = "channels, latent_dim, classes, shared_dim, resolution"

# What statistics are called, and the counter beside them: plain, --mybn, --cross_replica.
STATISTICS: dict[str, dict[str, np.ndarray]] = {
    "stored": {},
    "bn.stored": {"accumulation_counter": np.zeros(1, np.float32)},
    "bn.running": {"num_batches_tracked": np.zeros((), np.int64)},
}

# The counters mean nothing outside of the reference's own procedures.
IGNORED = re.compile(r"(accumulation_counter|num_batches_tracked)$")


def from_official(
    state: State, module: nn.Module, *, strict: bool = True
) -> tuple[dict[str, Any], Report]:
    """Variables (NumPy arrays) of a network from an official state dict.

    Args:
        state: of G, D or the averaged G; names may carry DataParallel's "module.".
        strict: an error if an entry is missing; False: its place keeps an initial value.

    Raises:
        ValueError: entries are missing, or one has a shape that does not fit the module.
    """
    state = {name.removeprefix("module."): np.asarray(array) for name, array in state.items()}
    wanted = entries(module, statistics=statistics_of(state))
    inputs = example_inputs(module)
    return interop.read(
        state, module, wanted, inputs, FIELDS, ignored=IGNORED.search, strict=strict
    )


def to_official(
    variables: Mapping[str, Any], module: nn.Module, *, statistics: str = "stored"
) -> dict[str, np.ndarray]:
    """The official state dict of our variables: the inverse of `from_official`.

    Args:
        variables: of the network; collections and parameters that are left out stay out, and
            gradients pass as `{"params": gradients}`.
        statistics: one of `STATISTICS`.
    """
    return collect(variables, entries(module, statistics=statistics), statistics=statistics)


def constants(module: nn.Module) -> dict[str, np.ndarray]:
    """None: the official state dicts hold nothing that is a field of our modules."""
    del module
    return {}


def configured(config: ConfigDict, weights: Weights) -> ConfigDict:
    """State dicts tell nothing but shapes; an average that is there is kept from the first step."""
    del weights
    config = config.copy_and_resolve_references().unlock()
    config.ema.start_step = 0
    return config


def statistics_of(state: State) -> str:
    """Which of `STATISTICS` an official state dict has."""
    named = (which for which in STATISTICS for name in state if name.endswith(f"{which}_mean"))
    return max(named, key=len, default="stored")


@functools.lru_cache(maxsize=32)  # tracing a network takes a third of a second
def entries(module: nn.Module, *, statistics: str = "stored") -> tuple[Entry, ...]:
    """For each of a network's variables, where an official state dict keeps it."""
    shapes = interop.shapes_of(module, example_inputs(module))
    return entries_of(shapes, statistics=statistics, width=getattr(module, "bottom_width", 0))


def entries_of(
    shapes: Mapping[Path, tuple[int, ...]], *, statistics: str = "stored", width: int = 0
) -> tuple[Entry, ...]:
    """As `entries`, for variables of any module of BigGAN's layers.

    Args:
        shapes: of its variables.
        width: of the first feature map, if there is a first dense layer called "linear".
    """
    return tuple(_entry(path, shape, statistics, width) for path, shape in shapes.items())


def collect(
    variables: Mapping[str, Any], wanted: Sequence[Entry], *, statistics: str = "stored"
) -> dict[str, np.ndarray]:
    """The official entries of our arrays, as far as there are any."""
    state = interop.collect(variables, wanted)
    for entry in wanted:
        if entry.path[-1] == "var" and entry.names[0] in state:
            layer = entry.names[0].rpartition(".")[0]
            state |= {f"{layer}.{name}": zero for name, zero in STATISTICS[statistics].items()}
    return state


def official_name(path: Path) -> str:
    """`blocks.0.1.theta` for `("blocks_0_1", "theta")`."""
    name = ".".join(path)
    name = re.sub(r"^blocks_(\d+)_(\d+)", r"blocks.\1.\2", name)
    return re.sub("^output_norm", "output_layer.0", re.sub("^output_conv", "output_layer.2", name))


def _entry(path: Path, shape: tuple[int, ...], statistics: str, width: int) -> Entry:
    collection, *middle, leaf = path
    prefix = official_name(tuple(middle))
    prefix = f"{prefix}." if prefix else ""
    if collection == "batch_stats":
        return plain(path, f"{prefix}{statistics}_{leaf}", shape)

    def outputs_last(array: np.ndarray) -> np.ndarray:
        """[c, h, w] of the generator's first layer to [h, w, c]."""
        if middle != ["linear"] or not width:
            return array
        split = array.reshape(*array.shape[:-1], -1, width, width)
        return np.moveaxis(split, -3, -1).reshape(array.shape)

    def outputs_first(array: np.ndarray) -> np.ndarray:
        if middle != ["linear"] or not width:
            return array
        split = array.reshape(*array.shape[:-1], width, width, -1)
        return np.moveaxis(split, -1, -3).reshape(array.shape)

    if collection == "spectral":
        short = {"u": "u", "sigma": "sv"}[leaf]
        keep = leaf == "u"
        return Entry(
            path,
            tuple(f"{prefix}{short}{index}" for index in range(shape[0])),
            (1, *shape[1:]),
            lambda arrays: outputs_last(np.concatenate(arrays)) if keep else np.concatenate(arrays),
            lambda array: np.split(outputs_first(array) if keep else array, shape[0]),
        )
    if leaf == "kernel" and len(shape) == 4:
        height, across, inputs, outputs = shape
        return Entry(
            path,
            (f"{prefix}weight",),
            (outputs, inputs, height, across),
            lambda arrays: arrays[0].transpose(2, 3, 1, 0),
            lambda array: [np.ascontiguousarray(array.transpose(3, 2, 0, 1))],
        )
    if leaf == "kernel":
        return Entry(
            path,
            (f"{prefix}weight",),
            shape[::-1],
            lambda arrays: outputs_last(arrays[0].T),
            lambda array: [np.ascontiguousarray(outputs_first(array).T)],
        )
    if leaf == "embedding":
        return plain(path, f"{prefix}weight", shape)
    return Entry(
        path,
        (f"{prefix}{leaf}",),
        shape,
        lambda arrays: outputs_last(arrays[0]) if arrays[0].ndim else arrays[0],
        lambda array: [outputs_first(array) if array.ndim else array],
    )
