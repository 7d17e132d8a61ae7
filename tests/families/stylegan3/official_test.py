"""Official state dicts to our variables and back."""

import jax
import numpy as np
import pytest

from ganjax.families.stylegan2.networks import Discriminator, MappingNetwork
from ganjax.families.stylegan3 import official
from ganjax.families.stylegan3.networks import Generator, configuration_r, example_inputs
from ganjax.layers.initializers import init_on_host

SMALL = dict(
    resolution=8, classes=3, channel_base=32, channel_max=4, latent_dim=5, w_dim=6, layers=2
)
MODULES = {
    "T": Generator(critical=1, **SMALL),
    "R": configuration_r(critical=1, **SMALL),
    "discriminator": Discriminator(8, classes=3, channel_base=32, channel_max=4),
    "mapping": MappingNetwork(5, 3, 6, layers=2),
}


def start(module):
    args, kwargs = example_inputs(module)
    variables = init_on_host(module, jax.random.key(0), *args, **kwargs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), variables)


@pytest.mark.parametrize("name", MODULES)
def test_round_trip(name):
    module = MODULES[name]
    variables = start(module)
    state = official.to_official(variables, module) | official.constants(module)
    back, report = official.from_official(state, module)
    assert report.complete and len(report.matched) == len(state), str(report)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_names_and_layouts():
    variables = start(MODULES["T"])
    state = official.to_official(variables, MODULES["T"])
    ours = variables["params"]["synthesis"]["input"]["kernel"]
    np.testing.assert_array_equal(state["synthesis.input.weight"], ours.T)
    layer = variables["params"]["synthesis"]["L1_8_4"]
    np.testing.assert_array_equal(
        state["synthesis.L1_8_4.weight"], layer["kernel"].transpose(3, 2, 0, 1)
    )
    assert {"synthesis.input.freqs", "synthesis.L2_8_3.magnitude_ema", "mapping.w_avg"} <= set(
        state
    )


def test_what_does_not_fit_is_said():
    state = official.to_official(start(MODULES["T"]), MODULES["T"])
    state |= official.constants(MODULES["T"])
    with pytest.raises(ValueError, match=r"synthesis\.input.*set the module's fields .resolution"):
        official.from_official(state, MODULES["R"])
    wider = {**state, "synthesis.L0_28_4.down_filter": np.ones(12) / 12}
    with pytest.raises(ValueError, match="L0_28_4.down_filter is the constant"):
        official.from_official(wider, MODULES["T"])
