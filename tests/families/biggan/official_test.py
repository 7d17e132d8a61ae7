"""Official state dicts to our variables and back."""

import functools

import jax
import numpy as np
import pytest

from ganjax.families.biggan import official
from ganjax.families.biggan.networks import (
    DeepDiscriminator,
    DeepGenerator,
    Discriminator,
    Generator,
    example_inputs,
)
from ganjax.layers.initializers import init_on_host
from ganjax.layers.spectral import SpectralConv

SMALL = dict(resolution=32, channels=2, classes=3, attention=(16,))
MODULES = {
    "generator": Generator(latent_dim=8, shared_dim=4, **SMALL),
    "sagan": Generator(latent_dim=5, shared_dim=0, hierarchical=False, **SMALL),
    "values": Generator(
        latent_dim=8, shared_dim=4, conv=functools.partial(SpectralConv, values=2), **SMALL
    ),
    "deep generator": DeepGenerator(latent_dim=8, shared_dim=4, **SMALL),
    "discriminator": Discriminator(**SMALL),
    "deep discriminator": DeepDiscriminator(**SMALL),
}


def start(module):
    args, kwargs = example_inputs(module)
    variables = init_on_host(module, jax.random.key(0), *args, **kwargs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), variables)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("statistics", official.STATISTICS)
def test_round_trip(name, statistics):
    module = MODULES[name]
    variables = start(module)
    state = official.to_official(variables, module, statistics=statistics)
    back, report = official.from_official(state, module)
    assert report.complete, str(report)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_names_and_layouts():
    module = MODULES["generator"]
    variables = start(module)
    state = official.to_official(variables, module)
    params, spectral = variables["params"], variables["spectral"]
    np.testing.assert_array_equal(
        state["blocks.1.0.conv1.weight"],
        params["blocks_1_0"]["conv1"]["kernel"].transpose(3, 2, 0, 1),
    )
    np.testing.assert_array_equal(
        state["blocks.1.1.theta.weight"][:, :, 0, 0],
        params["blocks_1_1"]["theta"]["kernel"][0, 0].T,
    )
    np.testing.assert_array_equal(
        state["blocks.0.0.bn1.gain.weight"], params["blocks_0_0"]["bn1"]["gain"]["kernel"].T
    )
    np.testing.assert_array_equal(state["shared.weight"], params["shared"]["embedding"])
    np.testing.assert_array_equal(state["output_layer.0.gain"], params["output_norm"]["gain"])
    assert state["output_layer.2.u0"].shape == (1, 3)
    # The first layer's outputs are [c, h, w] there and [h, w, c] here.
    np.testing.assert_array_equal(
        state["linear.bias"].reshape(8, 4, 4).transpose(1, 2, 0).ravel(), params["linear"]["bias"]
    )
    np.testing.assert_array_equal(
        state["linear.u0"].reshape(8, 4, 4).transpose(1, 2, 0).ravel(), spectral["linear"]["u"][0]
    )
    for statistics in official.STATISTICS:
        state = official.to_official(variables, module, statistics=statistics)
        assert f"blocks.0.0.bn1.{statistics}_mean" in state
        assert official.statistics_of(state) == statistics


def test_the_report_and_what_is_missing():
    module = MODULES["discriminator"]
    state = official.to_official(start(module), module)
    state = {f"module.{name}": array for name, array in state.items()}
    del state["module.embed.weight"]
    state["module.extra"] = np.zeros(2)
    state["module.bn.accumulation_counter"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"1 missing:\s+embed\.weight"):
        official.from_official(state, module)
    variables, report = official.from_official(state, module, strict=False)
    assert (report.missing, report.unexpected) == (("embed.weight",), ("extra",))
    assert report.ignored == ("bn.accumulation_counter",)
    args, kwargs = example_inputs(module)
    fresh = init_on_host(module, jax.random.key(0), *args, **kwargs)
    np.testing.assert_array_equal(
        variables["params"]["embed"]["embedding"], fresh["params"]["embed"]["embedding"]
    )


def test_another_size_is_refused_by_name():
    module = MODULES["discriminator"]
    state = official.to_official(start(module), module)
    with pytest.raises(ValueError, match=r"conv1\.bias has shape \(8,\).*\(16,\)"):
        official.from_official(state, module.clone(channels=4))
