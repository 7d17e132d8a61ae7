"""Equivariance, untrained: what StyleGAN3's configurations promise, and StyleGAN2 does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.stylegan2.networks import Generator as StyleGAN2Generator
from ganjax.families.stylegan2.networks import MappingNetwork
from ganjax.families.stylegan2.networks import example_inputs as inputs_of_stylegan2
from ganjax.families.stylegan2.probes import Probes as StyleGAN2Probes
from ganjax.families.stylegan3.networks import Generator, configuration_r, example_inputs
from ganjax.families.stylegan3.probes import Probes
from ganjax.layers.initializers import init_on_host
from ganjax.metrics.pairs import psnr, squares
from ganjax.metrics.protocols import BY_NAME

SMALL = dict(resolution=32, image_channels=1, latent_dim=4, w_dim=4)
FEW = dict(**SMALL, channel_base=256, channel_max=8)
MODELS = {
    "T": (Generator(layers=4, **FEW), example_inputs, Probes),
    "R": (configuration_r(layers=4, **FEW), example_inputs, Probes),
    "StyleGAN2": (
        StyleGAN2Generator(mapping_network=functools.partial(MappingNetwork, layers=2), **FEW),
        inputs_of_stylegan2,
        StyleGAN2Probes,
    ),
}
NAMES = ("eqt50k_int", "eqt50k_frac", "eqr50k")


@functools.cache
def start(model):
    module, inputs, _ = MODELS[model]
    return jax.tree.map(jnp.asarray, init_on_host(module, jax.random.key(0), *inputs(module)[0]))


@functools.cache
def pairs(model, name):
    """Four pairs of a metric, and the variance of their images."""
    module, _, probes = MODELS[model]
    probe = BY_NAME[name].probe
    function = functools.partial(probes(module).by_name()[probe.name], **probe.options)
    labels = jnp.zeros(4, jnp.int32)
    return jax.jit(function)(start(model), jax.random.key(1), jnp.arange(4), labels)


def equivariance(model, name):
    """In dB."""
    return psnr(np.asarray(squares(pairs(model, name))))


@pytest.mark.parametrize("name", NAMES[:2])
def test_both_configurations_are_equivariant_to_translation(name):
    least = 80 if name == "eqt50k_int" else 55
    assert min(equivariance("T", name), equivariance("R", name)) > least
    assert equivariance("StyleGAN2", name) < 30


def test_configuration_r_is_equivariant_to_rotation():
    assert equivariance("R", "eqr50k") > 55
    assert equivariance("T", "eqr50k") < equivariance("R", "eqr50k") - 20
    assert equivariance("StyleGAN2", "eqr50k") < 30


@pytest.mark.parametrize("model", MODELS)
def test_it_is_no_matter_of_contrast(model):
    """Errors over the variance of the images: at least as much apart."""

    def error(name):
        made = pairs(model, name)
        wrong, count = np.asarray(squares(made)).sum(axis=0)
        return wrong / count / np.var(made["one"])

    shifts, turns = error("eqt50k_int"), error("eqr50k")
    assert (shifts < 1e-5) == (model in ("T", "R"))
    assert (turns < 1e-3) == (model == "R")
    assert model != "StyleGAN2" or min(shifts, turns) > 0.03


def test_pairs_are_functions_of_their_index():
    """Two programs, the same pairs: numbers 2 and 3."""
    module, _, probes = MODELS["T"]
    probe = BY_NAME["eqt50k_int"].probe
    function = functools.partial(probes(module).translation, **probe.options)
    some = jax.jit(function)(
        start("T"), jax.random.key(1), jnp.array([2, 3]), jnp.zeros(2, jnp.int32)
    )
    for key, value in pairs("T", "eqt50k_int").items():
        np.testing.assert_allclose(some[key], value[2:], atol=1e-5)


def test_shifts_are_of_whole_pixels_and_differ():
    masks = np.asarray(pairs("T", "eqt50k_int")["mask"])[..., 0]
    kept = {(int(m.any(1).sum()), int(m.any(0).sum())) for m in masks}
    assert len(kept) > 1 and all(28 <= size <= 32 for pair in kept for size in pair)
