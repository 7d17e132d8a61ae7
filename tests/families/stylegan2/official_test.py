"""Official state dicts to our variables and back."""

import jax
import numpy as np
import pytest

from ganjax.families.stylegan2 import official
from ganjax.families.stylegan2.networks import (
    Discriminator,
    Generator,
    MappingNetwork,
    example_inputs,
)
from ganjax.layers.initializers import init_on_host

SMALL = dict(resolution=8, classes=3, channel_base=32, channel_max=4, taps=(1, 2, 1))
MODULES = {
    "skip": Generator(latent_dim=5, w_dim=6, **SMALL),
    "resnet": Generator(latent_dim=5, w_dim=6, architecture="resnet", **SMALL),
    "quiet": Generator(latent_dim=5, w_dim=6, use_noise=False, **SMALL),
    "discriminator": Discriminator(**SMALL),
    "skip discriminator": Discriminator(architecture="skip", **SMALL),
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
    g, d = start(MODULES["skip"]), start(MODULES["discriminator"])
    state = official.to_official(g, MODULES["skip"])
    block = g["params"]["synthesis"]["b8"]
    # Of the two, the layer that doubles the resolution convolves there.
    kernel = block["conv0"]["kernel"].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(state["synthesis.b8.conv0.weight"], kernel[:, :, ::-1, ::-1])
    kernel = block["conv1"]["kernel"].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(state["synthesis.b8.conv1.weight"], kernel)
    np.testing.assert_array_equal(state["mapping.w_avg"], g["averages"]["mapping"]["w_avg"])
    state = official.to_official(d, MODULES["discriminator"])
    # The dense layer counts its inputs as [c, h, w] there and as [h, w, c] here.
    ours = d["params"]["b4"]["fc"]["kernel"].reshape(4, 4, 4, 4)  # [h, w, c, o]
    official_weight = state["b4.fc.weight"].reshape(4, 4, 4, 4)  # [o, c, h, w]
    np.testing.assert_array_equal(official_weight, ours.transpose(3, 2, 0, 1))


def test_what_does_not_fit_is_said():
    module = MODULES["skip"]
    state = official.to_official(start(module), module) | official.constants(module)
    other = dict(state, **{"synthesis.b8.resample_filter": np.ones((4, 4)) / 16})
    with pytest.raises(ValueError, match="b8.resample_filter.*set the module's fields .*taps"):
        official.from_official(other, module)
    other = {name: array for name, array in state.items() if name != "mapping.fc0.bias"}
    with pytest.raises(ValueError, match="1 missing:\n.*mapping.fc0.bias"):
        official.from_official(other, module)
    filled, report = official.from_official(other, module, strict=False)
    assert report.missing == ("mapping.fc0.bias",)
    np.testing.assert_array_equal(filled["params"]["mapping"]["fc0"]["bias"], 0)
    _, report = official.from_official({**state, "extra": np.ones(1)}, module)
    assert report.unexpected == ("extra",) and not report.complete
    with pytest.raises(ValueError, match="set the module's fields .resolution, channel_base"):
        official.from_official(state, module.clone(w_dim=7))
