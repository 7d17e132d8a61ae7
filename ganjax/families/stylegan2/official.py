"""Maps of the official state dicts (stylegan2-ada-pytorch, stylegan3) to our variables and back.

Names differ by a rule, layouts by transpositions:

    synthesis.b8.conv1.weight [out, in, h, w]   params    synthesis/b8/conv1/kernel [h, w, in, out]
    synthesis.b8.conv0.weight                   the same, its taps in reverse order
    mapping.fc0.weight [out, in]                params    mapping/fc0/kernel [in, out]
    synthesis.b4.const [c, h, w]                params    synthesis/b4/const [h, w, c]
    b4.fc.weight [out, (c h w)]                 params    b4/fc/kernel [(h w c), out]
    synthesis.b8.conv1.noise_const [h, w]       noise     synthesis/b8/conv1/noise_const
    mapping.w_avg [w_dim]                       averages  mapping/w_avg
    synthesis.b8.conv0.resample_filter [k, k]   the module's `taps`, which it is compared with

The official layers that double the resolution convolve, all the others correlate; ours correlate.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from ganjax.families.stylegan2 import snapshots
from ganjax.families.stylegan2.blocks import FIRST
from ganjax.families.stylegan2.networks import (
    Discriminator,
    Generator,
    example_inputs,
    resolutions,
)
from ganjax.interop.entries import Entry, Inputs, Path, State, collect, plain, read, shapes_of
from ganjax.interop.report import Report
from ganjax.interop.weights import Weights
from ganjax.layers.filtering import setup_filter

FIELDS = "resolution, channel_base, channel_max, latent_dim, w_dim, classes, architecture, taps"
# Whose training values the run of a snapshot has.
CONFIG = "configs/stylegan2.py:auto"
# Layers that do not resample own a filter in the official code all the same.
UNUSED = (1, 3, 3, 1)


def from_official(
    state: State, module: nn.Module, *, strict: bool = True
) -> tuple[dict[str, Any], Report]:
    """Variables (NumPy arrays) of a network from an official state dict.

    Args:
        state: of G, D, the averaged G, or of a mapping network alone.
        strict: an error if an entry is missing; False: its place keeps an initial value.

    Raises:
        ValueError: entries are missing, or one has a shape or a filter that does not fit the
            module.
    """
    return read(
        state,
        module,
        entries(module),
        example_inputs(module),
        FIELDS,
        constants=constants(module),
        strict=strict,
    )


def to_official(variables: Mapping[str, Any], module: nn.Module) -> dict[str, np.ndarray]:
    """The official state dict of our variables, without filters: see `constants`.

    Args:
        variables: of the network; collections and parameters that are left out stay out, and
            gradients pass as `{"params": gradients}`.
    """
    return collect(variables, entries(module))


def configured(config: ConfigDict, weights: Weights) -> ConfigDict:
    """The config with the architecture of a snapshot, and the average kept from the first step.

    Raises:
        ValueError: the snapshot has options that the config has not.
    """
    config = snapshots.resumed(config, weights)
    if weights.modules:
        config.model.update(snapshots.generator(weights.generator))
    if "D" in weights.modules:
        found = snapshots.discriminator(weights.modules["D"])
        if found.pop("d_channel_max") != config.model.channel_max:
            raise ValueError(snapshots.TWO_MAXIMA)
        with config.ignore_type():  # the group may be the whole batch, None
            config.model.update(found)
    return config


def constants(module: nn.Module) -> dict[str, np.ndarray]:
    """The resampling filters that an official state dict of the module has."""
    if not isinstance(module, Generator | Discriminator):
        return {}
    taps, unused = setup_filter(module.taps), setup_filter(UNUSED)
    residual = module.architecture == "resnet"
    found: dict[str, np.ndarray] = {}
    for size in resolutions(module.resolution):
        if isinstance(module, Generator):
            block = f"synthesis.b{size}"
            found |= {f"{block}.resample_filter": taps, f"{block}.conv1.resample_filter": unused}
            if size > FIRST:
                found[f"{block}.conv0.resample_filter"] = taps
                if residual:
                    found[f"{block}.skip.resample_filter"] = taps
            continue
        entry = size == module.resolution or module.architecture == "skip"
        if size == FIRST:
            found["b4.conv.resample_filter"] = unused
            if module.architecture == "skip":
                found["b4.fromrgb.resample_filter"] = unused
            continue
        found |= {f"b{size}.resample_filter": taps, f"b{size}.conv1.resample_filter": taps}
        found[f"b{size}.conv0.resample_filter"] = unused
        if entry:
            found[f"b{size}.fromrgb.resample_filter"] = unused
        if residual:
            found[f"b{size}.skip.resample_filter"] = taps
    return found


@functools.lru_cache(maxsize=32)  # tracing a network takes a third of a second
def entries(module: nn.Module) -> tuple[Entry, ...]:
    """For each of a network's variables, where an official state dict keeps it."""
    return entries_of(module, example_inputs(module))


def entries_of(module: nn.Module, inputs: Inputs) -> tuple[Entry, ...]:
    """As `entries`, for any module of this naming."""
    return tuple(entry_of(path, shape) for path, shape in shapes_of(module, inputs).items())


def entry_of(path: Path, shape: tuple[int, ...]) -> Entry:
    """Where an official state dict keeps a variable of ours, by the rules above."""
    middle, leaf = path[1:-1], path[-1]
    prefix = "".join(f"{name}." for name in middle)
    if leaf == "const":
        return Entry(
            path,
            (f"{prefix}const",),
            (shape[2], shape[0], shape[1]),
            lambda arrays: arrays[0].transpose(1, 2, 0),
            lambda array: [np.ascontiguousarray(array.transpose(2, 0, 1))],
        )
    if leaf != "kernel":
        return plain(path, f"{prefix}{leaf}", shape)
    if len(shape) == 4:
        # Only these layers double the resolution with more than one tap.
        step = -1 if middle[:1] == ("synthesis",) and middle[-1] == "conv0" else 1
        height, width, inputs, outputs = shape
        return Entry(
            path,
            (f"{prefix}weight",),
            (outputs, inputs, height, width),
            lambda arrays: arrays[0].transpose(2, 3, 1, 0)[::step, ::step],
            lambda array: [np.ascontiguousarray(array[::step, ::step].transpose(3, 2, 0, 1))],
        )
    inputs, outputs = shape
    grid = (FIRST, FIRST, -1) if middle == ("b4", "fc") else (1, 1, inputs)

    def decode(arrays: list[np.ndarray]) -> np.ndarray:
        official = arrays[0].reshape(outputs, grid[2], grid[0], grid[1])
        return official.transpose(2, 3, 1, 0).reshape(inputs, outputs)

    def encode(array: np.ndarray) -> list[np.ndarray]:
        ours = array.reshape(*grid, outputs).transpose(3, 2, 0, 1)
        return [np.ascontiguousarray(ours.reshape(outputs, inputs))]

    return Entry(path, (f"{prefix}weight",), (outputs, inputs), decode, encode)
