"""Maps of the official state dicts (universome/stylegan-v) to our variables and back.

The rules of `families/stylegan2/official.py` hold; what is StyleGAN-V's own:

    synthesis.motion_encoder.*                        motion_encoder/*
        conv.0.weight [out, in, k]                    codes/conv0/kernel [k, in, out]
        rnn.weight_ih_l0, weight_hh_l0 [4 out, in]    codes/inputs, states [in, 4 out]
        rnn.bias_ih_l0, bias_hh_l0                    codes/inputs_bias, states_bias
        time_encoder.*_predictor.weight               waves/*_predictor/kernel
        time_encoder.freqs, phase_scales [1, d]       the constants of `Waves`, compared with
        mapping.*                                     waves/mapping/*
    synthesis.b4.input.input.const [1, c, h, w]       synthesis/b4/const [h, w, c]
    synthesis.b4.input.input [c, h, w]                the same, where motion is not joined to it
    D: time_encoder.const_embed.weight                time_encoder/const_embed/embedding
    time_encoder.time_encoder.fourier_coefs [1, d]    the coefficients of `waves`, compared with

The paper's discriminator, which was not released, is written under the same rules.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from ganjax.families.stylegan2 import official as stylegan2
from ganjax.families.styleganv.motion import MotionEncoder
from ganjax.families.styleganv.networks import (
    Discriminator,
    Generator,
    LearnedDifferences,
    example_inputs,
    to_constant,
)
from ganjax.families.styleganv.snapshots import configured
from ganjax.interop.entries import Entry, Path, State, collect, plain, read, shapes_of
from ganjax.interop.report import Report

__all__ = ["CONFIG", "configured", "constants", "entries", "from_official", "to_official"]

# Whose training values the run of a snapshot has.
CONFIG = "configs/styleganv.py:faceforensics256"
FIELDS = (
    "resolution, channel_base, channel_max, latent_dim, w_dim, classes, motion, join, frames,"
    " join_resolution, share, encoder"
)
RECURRENT = {
    "inputs": "weight_ih_l0",
    "states": "weight_hh_l0",
    "inputs_bias": "bias_ih_l0",
    "states_bias": "bias_hh_l0",
}


def from_official(
    state: State, module: nn.Module, *, strict: bool = True
) -> tuple[dict[str, Any], Report]:
    """Variables (NumPy arrays) of a network from an official state dict.

    Args:
        state: of G, D, the averaged G, or of a motion encoder or mapping network alone.
        strict: an error if an entry is missing; False: its place keeps an initial value.

    Raises:
        ValueError: entries are missing, or one has a shape or a constant that does not fit the
            module.
    """
    inputs = example_inputs(module)
    known = constants(module)
    return read(state, module, entries(module), inputs, FIELDS, constants=known, strict=strict)


def to_official(variables: Mapping[str, Any], module: nn.Module) -> dict[str, np.ndarray]:
    """The official state dict of our variables, without filters: see `constants`.

    Args:
        variables: of the network; collections and parameters that are left out stay out, and
            gradients pass as `{"params": gradients}`.
    """
    return collect(variables, entries(module))


def constants(module: nn.Module) -> dict[str, np.ndarray]:
    """Entries of an official state dict that are fields of our module."""
    found = stylegan2.constants(module)
    if isinstance(module, Generator | MotionEncoder):
        encoder = module.encoder if isinstance(module, Generator) else module
        encoding = encoder.encoding(parent=None)
        if hasattr(encoding, "constants"):
            prefix = f"{_prefix(module)}time_encoder."
            frequencies, scales = encoding.constants()
            found[f"{prefix}freqs"] = frequencies[None]
            found[f"{prefix}phase_scales"] = scales[None]
    if isinstance(module, Discriminator) and module.told_dim:
        encoder = module.encoder(parent=None)
        if isinstance(encoder, LearnedDifferences):
            count = math.ceil(math.log2(encoder.longest))
            powers = np.arange(-count, -encoder.skip, dtype=np.float32)
            name = "time_encoder.time_encoder.fourier_coefs"
            found[name] = (np.exp2(powers) * np.pi)[None].astype(np.float32)
    return found


@functools.lru_cache(maxsize=32)
def entries(module: nn.Module) -> tuple[Entry, ...]:
    """For each of a network's variables, where an official state dict keeps it."""
    shapes = shapes_of(module, example_inputs(module))
    return tuple(_entry(module, path, shape) for path, shape in shapes.items())


def _prefix(module: nn.Module) -> str:
    """Of the names of a motion encoder's entries."""
    return "synthesis.motion_encoder." if isinstance(module, Generator) else ""


def _entry(module: nn.Module, path: Path, shape: tuple[int, ...]) -> Entry:
    if isinstance(module, MotionEncoder):
        return _of_motion(path, path[1:], shape, "")
    if path[1] == "motion_encoder":
        return _of_motion(path, path[2:], shape, _prefix(module))
    if path[-1] == "embedding":
        return plain(path, "time_encoder.const_embed.weight", shape)
    if path[-1] == "const" and isinstance(module, Generator):
        ours = stylegan2.entry_of(path, shape)
        name = "synthesis.b4.input.input"
        if module.join is not to_constant:
            return Entry(path, (name,), ours.shape, ours.decode, ours.encode)
        return Entry(
            path,
            (f"{name}.const",),
            (1, *ours.shape),
            lambda arrays: ours.decode([arrays[0][0]]),
            lambda array: [ours.encode(array)[0][None]],
        )
    return stylegan2.entry_of(path, shape)


def _of_motion(path: Path, names: Path, shape: tuple[int, ...], prefix: str) -> Entry:
    """An entry of a motion encoder; `names` are those inside of it."""
    part, *rest = names
    if part == "waves":
        where = rest if rest[0] == "mapping" else ["time_encoder", *rest]
        inner = stylegan2.entry_of(("", *where), shape)
        names = (f"{prefix}{inner.names[0]}",)
        return Entry(path, names, inner.shape, inner.decode, inner.encode)
    if rest[0] in RECURRENT:
        name = f"rnn.{RECURRENT[rest[0]]}"
    else:
        layer, leaf = rest  # conv0, kernel
        name = f"conv.{layer.removeprefix('conv')}.{'bias' if leaf == 'bias' else 'weight'}"
    return Entry(
        path,
        (prefix + name,),
        shape[::-1],
        lambda arrays: arrays[0].transpose(),
        lambda array: [np.ascontiguousarray(array.transpose())],
    )
