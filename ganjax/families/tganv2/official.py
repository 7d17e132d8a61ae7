"""Maps of the released Chainer weights (pfnet-research/tgan2, npz) to our variables and back.

Names differ by a rule, layouts by transpositions:

    block1/c1/W [out, in, h, w]              params       block1/c1/kernel [h, w, in, out]
    level0/block1/c1/W [out, in, t, h, w]    params       level0/block1/c1/kernel [t, h, w, in, out]
    decoder0/w_hifoc/W, decoder0/w_xifoc/b   params       decoder0/w_hifoc, decoder0/bias
    decoder0/peep_c_i [c, h, w]              params       decoder0/peep_c_i [h, w, c]
    b3/gamma, b3/beta                        params       b3/gain, b3/bias
    b3/avg_mean, b3/avg_var                  batch_stats  b3/mean, b3/var

The dense layer `fc` counts its outputs as [c, h, w] there and as [h, w, c] here. `b3/N` and the
like count updates of Chainer's statistics and are left out. There is a `c` for each level, from
`c3` on.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from ganjax.families.tganv2.networks import COARSEST, example_inputs
from ganjax.interop import entries as interop
from ganjax.interop.entries import Entry, Path, State
from ganjax.interop.report import Report
from ganjax.interop.weights import Weights

FIELDS = "levels, channels, recurrent_channels, recurrent_layers, latent_dim, bottom_width"

COUNTER = re.compile(r"(^|/)b\d/N$")
NORM = re.compile(r"b\d$")

LEAVES = {"kernel": "W", "bias": "b", "mean": "avg_mean", "var": "avg_var"}
NORM_LEAVES = {"gain": "gamma", "bias": "beta", "mean": "avg_mean", "var": "avg_var"}


def from_official(
    state: State, module: nn.Module, *, strict: bool = True
) -> tuple[dict[str, Any], Report]:
    """Variables (NumPy arrays) of a network from a released file's arrays.

    Args:
        state: of the generator or the discriminators.
        strict: an error if an entry is missing; False: its place keeps an initial value.

    Raises:
        ValueError: entries are missing, or one has a shape that does not fit the module.
    """
    inputs = example_inputs(module)
    return interop.read(
        state, module, entries(module), inputs, FIELDS, ignored=COUNTER.search, strict=strict
    )


def to_official(variables: Mapping[str, Any], module: nn.Module) -> dict[str, np.ndarray]:
    """The released names and layouts of our variables: the inverse of `from_official`.

    Args:
        variables: of the network; collections and parameters that are left out stay out, and
            gradients pass as `{"params": gradients}`.
    """
    return interop.collect(variables, entries(module))


def constants(module: nn.Module) -> dict[str, np.ndarray]:
    """None: a released file has nothing but weights and statistics."""
    del module
    return {}


def configured(config: ConfigDict, weights: Weights) -> ConfigDict:
    """The config with the sizes that the networks' weights tell."""
    config = config.copy_and_resolve_references().unlock()
    g = weights.states.get("G", weights.states.get("G_ema", {}))
    d = weights.states.get("D", {})
    if "fc/W" in g:
        heads = [int(found[1]) for name in g if (found := re.fullmatch(r"c(\d+)/W", name))]
        levels = max(heads) - COARSEST + 1
        images, features = g[f"c{max(heads)}/W"].shape[:2]
        outputs, latent_dim = g["fc/W"].shape
        recurrent = g["decoder0/w_xifoc/W"].shape[1]
        width = round((outputs / recurrent) ** 0.5)
        config.data.update(resolution=width * 2 ** (levels + 2), channels=images)
        config.model.update(
            levels=levels,
            latent_dim=latent_dim,
            g_channels=features,
            recurrent_channels=recurrent,
            recurrent_layers=sum(bool(re.fullmatch(r"decoder\d+/w_hifoc/W", name)) for name in g),
        )
        for name in ("frame_strides", "batch_strides"):
            if len(config.model[name]) != levels - 1:
                config.model[name] = (2,) * (levels - 1)
    if "level0/block1/c1/W" in d:
        config.model.d_channels = d["level0/block1/c1/W"].shape[0]
    return config


@functools.lru_cache(maxsize=32)  # tracing a network takes a third of a second
def entries(module: nn.Module) -> tuple[Entry, ...]:
    """For each of a network's variables, where a released file keeps it."""
    shapes = interop.shapes_of(module, example_inputs(module))
    return entries_of(shapes, width=getattr(module, "bottom_width", 0))


def entries_of(shapes: Mapping[Path, tuple[int, ...]], *, width: int = 0) -> tuple[Entry, ...]:
    """As `entries`, for variables of any module of TGANv2's layers.

    Args:
        shapes: of its variables.
        width: of the first feature map, if there is a dense layer called "fc".
    """
    return tuple(_entry(path, shape, width) for path, shape in shapes.items())


def _name(path: Path) -> str:
    _, *modules, leaf = path
    above = modules[-1] if modules else ""
    if leaf == "w_hifoc":
        return "/".join([*modules, leaf, "W"])
    if leaf == "bias" and (above.startswith("decoder") or not modules):
        return "/".join([*modules, "w_xifoc", "b"])
    if leaf.startswith("peep_c_"):
        return "/".join([*modules, leaf])
    return "/".join([*modules, (NORM_LEAVES if NORM.match(above) else LEAVES)[leaf]])


def _entry(path: Path, shape: tuple[int, ...], width: int) -> Entry:
    name = _name(path)
    if path[1] == "fc":
        outputs = (shape[-1] // width**2, width, width)

        def outputs_last(arrays: list[np.ndarray]) -> np.ndarray:
            """[c h w] or [c h w, in] to [h w c] or [in, h w c]."""
            split = arrays[0].reshape(*outputs, -1)
            return split.transpose(3, 1, 2, 0).reshape(shape)

        def outputs_first(array: np.ndarray) -> list[np.ndarray]:
            split = array.reshape(-1, width, width, outputs[0])
            return [np.ascontiguousarray(split.transpose(3, 1, 2, 0)).reshape(shape[::-1])]

        return Entry(path, (name,), shape[::-1], outputs_last, outputs_first)
    if len(shape) < 2:
        return interop.plain(path, name, shape)
    # Channels come first there: [c, h, w], [out, in], [out, in, h, w], [out, in, t, h, w].
    order = (2, 0, 1) if len(shape) == 3 else (-1, -2, *range(len(shape) - 2))
    theirs = tuple(axis % len(shape) for axis in order)
    back = tuple(int(axis) for axis in np.argsort(theirs))
    return Entry(
        path,
        (name,),
        tuple(shape[axis] for axis in theirs),
        lambda arrays: arrays[0].transpose(back),
        lambda array: [np.ascontiguousarray(array.transpose(theirs))],
    )
