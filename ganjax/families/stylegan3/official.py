"""Maps of the official state dicts (NVlabs/stylegan3) to our variables and back.

The rules of `families/stylegan2/official.py` hold; what is StyleGAN3's own:

    synthesis.input.weight [out, in]            params    synthesis/input/kernel [in, out]
    synthesis.input.freqs, phases, transform    fourier   synthesis/input/freqs, ...
    synthesis.L0_36_512.magnitude_ema []        averages  synthesis/L0_36_512/magnitude_ema
    synthesis.L0_36_512.up_filter [k]           what the layer's signals make, which it is compared
    synthesis.L0_36_512.down_filter             with

D and the mapping network alone are StyleGAN2's.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from ganjax.families.stylegan2 import official as stylegan2
from ganjax.families.stylegan2 import snapshots
from ganjax.families.stylegan3 import rules
from ganjax.families.stylegan3.networks import Generator, example_inputs
from ganjax.interop.entries import Entry, State, collect, read
from ganjax.interop.report import Report
from ganjax.interop.weights import Weights

FIELDS = (
    "resolution, channel_base, channel_max, layers, critical, kernel_size, radial, margin,"
    " filter_size, latent_dim, w_dim, classes"
)
# Whose training values the run of a snapshot has.
CONFIG = "configs/stylegan3.py:ffhq1024"


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
    if not isinstance(module, Generator):
        return stylegan2.from_official(state, module, strict=strict)
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


def configured(config: ConfigDict, weights: Weights) -> ConfigDict:
    """The config with the architecture of a snapshot, T or R, and the average and all of the band
    kept from the first step.

    Raises:
        ValueError: the snapshot has options that the config has not.
    """
    config = snapshots.resumed(config, weights)
    config.loss.blur_sigma = 0.0
    if not weights.modules:
        return config
    config.loss.r1_gamma = rules.r1_gamma(config, devices=1)
    g = weights.generator
    synthesis = g.part("synthesis")
    first = synthesis.part(synthesis.attributes["layer_names"][0])
    snapshots.expressible(g, {"synthesis": {"output_scale": 0.25}})
    given = snapshots.arguments(g)
    config.model.update(
        layers=synthesis.attributes["num_layers"],
        critical=synthesis.attributes["num_critical"],
        margin=synthesis.attributes["margin_size"],
        kernel_size=first.attributes["conv_kernel"],
        radial=bool(given.get("use_radial_filters", False)),
        g_channel_base=given.get("channel_base", snapshots.CHANNEL_BASE),
        g_channel_max=given.get("channel_max", snapshots.CHANNEL_MAX),
        clamp=float(first.attributes["conv_clamp"] or 0),
        narrow=synthesis.attributes["num_fp16_res"],
    )
    if "D" in weights.modules:
        found = snapshots.discriminator(weights.modules["D"])
        if found.pop("d_architecture") != "resnet":
            raise ValueError(
                "the snapshot's D is not residual, and that of configs/stylegan3.py is; build the"
                " module in Python and fill it by from_official"
            )
        with config.ignore_type():  # the group may be the whole batch, None
            config.model.update(found)
    return config


def constants(module: nn.Module) -> dict[str, np.ndarray]:
    """The resampling filters that an official state dict of the module has."""
    if not isinstance(module, Generator):
        return stylegan2.constants(module)
    found: dict[str, np.ndarray] = {}
    for name, way in module.resamplings().items():
        for kind, taps in (("up", way.up_taps), ("down", way.down_taps)):
            if taps is not None:
                found[f"synthesis.{name}.{kind}_filter"] = taps
    return found


@functools.lru_cache(maxsize=32)
def entries(module: nn.Module) -> tuple[Entry, ...]:
    """For each of a network's variables, where an official state dict keeps it."""
    return stylegan2.entries_of(module, example_inputs(module))
