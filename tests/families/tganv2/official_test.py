"""Released Chainer names and layouts to our variables and back."""

import jax
import numpy as np
import pytest

from ganjax.families.tganv2 import official
from ganjax.families.tganv2.networks import Discriminator, Generator, example_inputs
from ganjax.layers.initializers import init_on_host

GENERATOR = Generator(
    latent_dim=3, bottom_width=2, channels=1, recurrent_channels=5, recurrent_layers=2
)
DISCRIMINATOR = Discriminator(channels=2)


def start(module):
    args, kwargs = example_inputs(module)
    variables = init_on_host(module, jax.random.key(0), *args, **kwargs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), variables)


@pytest.mark.parametrize("module", [GENERATOR, DISCRIMINATOR], ids=["generator", "discriminator"])
def test_round_trip(module):
    variables = start(module)
    state = official.to_official(variables, module)
    back, report = official.from_official(state, module)
    assert report.complete, str(report)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_names_and_layouts():
    variables = start(GENERATOR)
    state = official.to_official(variables, GENERATOR)
    params = variables["params"]
    np.testing.assert_array_equal(
        state["block2/c1/W"], params["block2"]["c1"]["kernel"].transpose(3, 2, 0, 1)
    )
    decoder = params["decoder1"]
    np.testing.assert_array_equal(
        state["decoder1/w_hifoc/W"], decoder["w_hifoc"].transpose(3, 2, 0, 1)
    )
    np.testing.assert_array_equal(
        state["decoder1/w_xifoc/W"], decoder["w_xifoc"]["kernel"].transpose(3, 2, 0, 1)
    )
    np.testing.assert_array_equal(state["decoder1/w_xifoc/b"], decoder["bias"])
    np.testing.assert_array_equal(state["b4/beta"], params["b4"]["bias"])
    np.testing.assert_array_equal(
        state["block1/b2/avg_var"], variables["batch_stats"]["block1"]["b2"]["var"]
    )
    # The first layer's outputs are [c, h, w] there and [h, w, c] here.
    np.testing.assert_array_equal(
        state["fc/b"].reshape(5, 2, 2).transpose(1, 2, 0).ravel(), params["fc"]["bias"]
    )
    np.testing.assert_array_equal(
        state["fc/W"].reshape(5, 2, 2, 3).transpose(3, 1, 2, 0).reshape(3, 20),
        params["fc"]["kernel"],
    )
    variables = start(DISCRIMINATOR)
    state = official.to_official(variables, DISCRIMINATOR)
    level = variables["params"]["level3"]
    np.testing.assert_array_equal(
        state["level3/block2/c2/W"], level["block2"]["c2"]["kernel"].transpose(4, 3, 0, 1, 2)
    )
    np.testing.assert_array_equal(state["level3/l6/W"], level["l6"]["kernel"].T)


def test_counters_of_statistics_are_ignored_and_what_lacks_is_named():
    state = official.to_official(start(GENERATOR), GENERATOR)
    _, report = official.from_official(state | {"block1/b1/N": np.array(7)}, GENERATOR)
    assert report.complete and report.ignored == ("block1/b1/N",)
    del state["c6/b"]
    with pytest.raises(ValueError, match="c6/b"):
        official.from_official(state, GENERATOR)
    back, report = official.from_official(state, GENERATOR, strict=False)
    assert report.missing == ("c6/b",)
    np.testing.assert_array_equal(back["params"]["c6"]["bias"], 0)


def test_another_size_is_refused():
    state = official.to_official(start(GENERATOR), GENERATOR)
    with pytest.raises(ValueError, match="set the module's fields .*recurrent_channels"):
        official.from_official(state, GENERATOR.clone(recurrent_channels=4))
