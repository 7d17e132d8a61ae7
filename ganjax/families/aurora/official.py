"""Maps of the released state dict (zhujiapeng/Aurora) to our variables and back.

Names differ by `RULES`, layouts by transpositions:

    mapping.dense0.weight [out, in]                 params    mapping/dense0/kernel [in, out]
    synthesis.net.1.0.conv2.weight [e, o, i, h, w]  params    synthesis/net_1/conv2/kernel
                                                              [e, h, w, i, o]; without e if it is 1
    ....conv2.style.*, filter_weight.*                        ..../conv2/affine, selection
    ....conv2.mtm_weight, mtm_scales, mtm_bias,               ..../conv2/offsets/kernel, scale,
        mtm_style.*                                               bias, affine
    ....conv1.weight of a layer that doubles        params    ..../up/kernel, taps in reverse order
    ....ff.net.3.0.proj.weight [2 h, d]             params    ..../ff/value, gate [3] [d, h]
    ....ff.net.3.2.weight [d, h]                    params    ..../ff/out [3] [h, d]
    synthesis.net.0.0.freqs, phases, transform      fourier   synthesis/net_0/input/...
    w_avg                                           averages  w_avg
    synthesis.filter, ....filter [k, k]             the module's `taps`, which it is compared with

The released dict has some tensors twice: `mlp.c_fc` is `c_fc`, and in a network without experts
`net.0` is `project_in` and `net.2` is `proj_out`. Both names are read and written.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from ganjax.families.aurora.networks import Generator, example_inputs
from ganjax.interop import entries as interop
from ganjax.interop.entries import Entry, Inputs, Path, State, collect, plain
from ganjax.interop.report import Report
from ganjax.interop.weights import Weights
from ganjax.layers.filtering import setup_filter

FIELDS = "stages, latent_dim, w_dim, text_dim, context_dim, mapped_ws, text_head, mapping_network"
# Of our paths, joined by slashes: the released names.
RULES = (
    (r"\bnet_0/input\b", "net.0.0"),
    (r"\bnet_0/conv\b", "net.0.1"),
    (r"\bnet_(\d+)\b", r"net.\1.0"),
    (r"\battn_blocks_(\d+)\b", r"attn_blocks.\1"),
    (r"\bres_blocks_(\d+)\b", r"transformer.res_blocks.\1"),
    (r"\bcross_attn/proj_out\b", "cross_attn/proj_out.0"),
    (r"\bto_out\b", "to_out.0"),
    (r"\brouter\b", "routing"),
    (r"\bup\b", "conv1"),
    (r"\boffsets/affine\b", "mtm_style"),
)
AVERAGED = "generator_smooth/"  # in front of names of the released file
PLAYERS = ("g",)  # those whose weights were released
HALVES = (":value", ":gate")  # of a released tensor that is two of ours
GATED = re.compile(r"(^|\.)(net\.\d+(\.0)?|project_in)\.proj\.(weight|bias)$")


def from_official(
    state: State, module: nn.Module, *, strict: bool = True
) -> tuple[dict[str, Any], Report]:
    """Variables (NumPy arrays) of the generator from a released state dict.

    Args:
        strict: an error if an entry is missing; False: its place keeps an initial value.

    Raises:
        ValueError: entries are missing, or one has a shape or a filter that does not fit the
            module.
    """
    return read(state, module, example_inputs(module), constants(module), strict)


def read(
    state: State,
    module: nn.Module,
    inputs: Inputs,
    taps: Mapping[str, np.ndarray],
    strict: bool = True,
) -> tuple[dict[str, Any], Report]:
    """As `from_official`, for any part of the generator.

    Args:
        inputs: of the part.
        taps: the filters that it has.
    """
    state, others = _averaged(state)
    state = halved({name: np.asarray(array) for name, array in state.items()})
    wanted = entries_of(module, inputs)
    variables, report = interop.read(
        state, module, wanted, inputs, FIELDS, constants=taps, named=_official, strict=strict
    )
    return variables, dataclasses.replace(report, ignored=(*report.ignored, *others))


def to_official(variables: Mapping[str, Any], module: nn.Module) -> dict[str, np.ndarray]:
    """The released state dict of our variables, without filters: see `constants`.

    Args:
        variables: of the network; collections and parameters that are left out stay out, and
            gradients pass as `{"params": gradients}`.
    """
    return write(variables, module, example_inputs(module))


def write(variables: Mapping[str, Any], module: nn.Module, inputs: Inputs) -> dict[str, np.ndarray]:
    """As `to_official`, for any part of the generator."""
    return joined(collect(variables, entries_of(module, inputs)))


def constants(module: nn.Module) -> dict[str, np.ndarray]:
    """The resampling filters that a released state dict of the module has."""
    assert isinstance(module, Generator)
    taps = setup_filter(module.taps)
    found = {"synthesis.filter": taps}
    index = 0
    for number, stage in enumerate(module.stages):
        if number:
            block = f"synthesis.net.{index}.0"
            found |= {f"{block}.conv1.filter": taps, f"{block}.skip_connection.filter": taps}
        index += stage.num_ws
    return found


def configured(config: ConfigDict, weights: Weights) -> ConfigDict:
    """The config with the text head of the released weights.

    The file says nothing of its architecture: sizes have to be the config's.
    """
    del weights
    config = config.copy_and_resolve_references().unlock()
    config.model.text_scores = "itself"
    return config


def _averaged(state: State) -> tuple[State, list[str]]:
    """The averaged generator of the released file, and the names of what else is in it."""
    own = {name: array for name, array in state.items() if name.startswith(AVERAGED)}
    if not own:
        return state, []
    others = [name for name in state if name not in own]
    return {name.removeprefix(AVERAGED): array for name, array in own.items()}, others


def halved(state: State) -> dict[str, np.ndarray]:
    """A state dict whose gated tensors are two entries: of the value, and of the gate."""
    found: dict[str, np.ndarray] = {}
    for name, array in state.items():
        if GATED.search(name):
            found |= {name + half: part for half, part in zip(HALVES, np.split(array, 2))}
        else:
            found[name] = array
    return found


def joined(state: State) -> dict[str, np.ndarray]:
    """The inverse of `halved`; of half a tensor, the other half is NaN."""
    found: dict[str, np.ndarray] = {}
    for name, array in state.items():
        own = _official(name)
        parts = [state.get(own + half, np.full_like(array, np.nan)) for half in HALVES]
        found[own] = array if own == name else np.concatenate(parts)
    return found


def _official(name: str) -> str:
    for half in HALVES:
        name = name.removesuffix(half)
    return name


def entries_of(module: nn.Module, inputs: Inputs) -> tuple[Entry, ...]:
    """For each variable of a part of the generator, where a released state dict keeps it."""
    shapes = interop.shapes_of(module, inputs)
    return tuple(_entry(path, shape, shapes) for path, shape in shapes.items())


def _entry(path: Path, shape: tuple[int, ...], known: Collection[Path]) -> Entry:
    parent, leaf = path[1:-1], path[-1]
    if leaf.removesuffix("_bias") in ("value", "gate", "out"):
        return _expert(path, shape, ("params", *parent, "gate") in known)
    prefix = prefix_of(parent, known)
    if path[0] != "params":
        return plain(path, f"{prefix}{leaf}", shape)
    if parent[-1:] == ("offsets",):
        return _offsets(path, shape, prefix.removesuffix("offsets."))
    if leaf == "const":
        return _transposed(path, shape, f"{prefix}const", (2, 0, 1), lead=True)
    if leaf == "scale":
        return plain(path, f"{prefix}weight", shape)
    if leaf == "bias":
        return _twice(plain(path, f"{prefix}bias", shape))
    if len(shape) == 2:
        return _twice(_transposed(path, shape, f"{prefix}weight", (1, 0)))
    axes = (0, 4, 3, 1, 2) if len(shape) == 5 else (3, 2, 0, 1)
    modulated = ("params", *parent, "affine", "kernel") in known
    step = -1 if parent[-1:] == ("up",) else 1
    return _transposed(
        path, shape, f"{prefix}weight", axes, lead=modulated and len(shape) == 4, step=step
    )


def prefix_of(parent: tuple[str, ...], known: Collection[Path] = ()) -> str:
    """The released name of a module of ours, and a dot.

    Args:
        known: all variables; they tell an affine map to a style from that of the input's waves.
    """
    name = "/".join(parent)
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    parts = name.split("/")
    if parts[-1] == "affine" and ("fourier", *parent[:-1], "freqs") not in known:
        parts[-1] = "style"
    if parts[-1] == "selection":
        parts[-1] = "filter_weight"
    return ".".join((*parts, "")) if name else ""


def _transposed(
    path: Path,
    shape: tuple[int, ...],
    name: str,
    axes: tuple[int, ...],
    *,
    lead: bool = False,
    step: int = 1,
) -> Entry:
    """Axes in another order, and in front of them one more of size 1 if `lead`."""
    official = tuple(shape[axis] for axis in axes)

    def decode(arrays: list[np.ndarray]) -> np.ndarray:
        array = arrays[0].reshape(official).transpose(np.argsort(axes))
        return array if step == 1 else array[..., ::-1, ::-1, :, :]

    def encode(array: np.ndarray) -> list[np.ndarray]:
        array = array if step == 1 else array[..., ::-1, ::-1, :, :]
        return [np.ascontiguousarray(array.transpose(axes)).reshape((1,) * lead + official)]

    return Entry(path, (name,), (1,) * lead + official, decode, encode)


def _offsets(path: Path, shape: tuple[int, ...], prefix: str) -> Entry:
    if path[-1] == "kernel":
        return _transposed(path, shape, f"{prefix}mtm_weight", (3, 2, 0, 1))
    name = {"scale": "mtm_scales", "bias": "mtm_bias"}[path[-1]]
    official = (1, *shape, 1, 1)
    return Entry(
        path,
        (prefix + name,),
        official,
        lambda arrays: arrays[0].reshape(shape),
        lambda array: [array.reshape(official)],
    )


def _twice(entry: Entry) -> Entry:
    """An entry that the released dict may have under two names."""
    name = entry.names[0]
    other = re.sub(r"\.(c_fc|c_proj)\.", r".mlp.\1.", name)
    if other == name:
        return entry
    return dataclasses.replace(
        entry, names=(name, other), encode=lambda array: entry.encode(array) * 2
    )


def _expert(path: Path, shape: tuple[int, ...], gated: bool) -> Entry:
    """Of a feed-forward network: of one, or a stack of experts."""
    prefix = prefix_of(path[1:-1])
    leaf = path[-1]
    kind = "bias" if leaf.endswith("_bias") else "weight"
    rank = 1 if kind == "bias" else 2
    own = shape[-rank:]
    inward = f"proj.{kind}:{leaf.removesuffix('_bias')}" if gated else f"0.{kind}"
    outward = leaf.startswith("out")
    if len(shape) > rank:
        tail = f"2.{kind}" if outward else f"0.{inward}"
        names = tuple(f"{prefix}net.{number}.{tail}" for number in range(shape[0]))
    elif outward:
        names = (f"{prefix}proj_out.{kind}", f"{prefix}net.2.{kind}")
    else:
        names = (f"{prefix}project_in.{inward}", f"{prefix}net.0.{inward}")

    def decode(arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack([array.T for array in arrays]) if len(shape) > rank else arrays[0].T

    def encode(array: np.ndarray) -> list[np.ndarray]:
        each = array if len(shape) > rank else [array] * 2
        return [np.ascontiguousarray(part.T) for part in each]

    return Entry(path, names, own[::-1], decode, encode)
