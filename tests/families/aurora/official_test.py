"""Released state dicts to our variables and back."""

import functools

import jax
import numpy as np
import pytest

from ganjax.families.aurora import networks, official
from ganjax.families.aurora.networks import Generator, MappingNetwork, stages
from ganjax.families.aurora.text import TextHead
from ganjax.family import Official

MODULE = Generator(
    stages({4: (2, 1, 0, 0), 8: (1, 2, 3, 1), 16: (1, 1, 0, 1)}, 512, 32, heads=2, head_dim=4),
    latent_dim=3,
    text_dim=5,
    context_dim=6,
    w_dim=4,
    source_features=8,
    text_head=functools.partial(TextHead, layers=1, heads=2),
    mapping_network=functools.partial(MappingNetwork, layers=2, features=7),
)


@pytest.fixture(scope="module")
def variables():
    inputs, _ = networks.example_inputs(MODULE)
    shapes = jax.eval_shape(functools.partial(MODULE.init, jax.random.key(0)), *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), dict(shapes))


@pytest.fixture(scope="module")
def state(variables):
    return official.to_official(variables, MODULE) | official.constants(MODULE)


def test_the_contract():
    assert isinstance(official, Official)


def test_round_trip(variables, state):
    back, report = official.from_official(state, MODULE)
    assert report.complete and len(report.matched) == len(state), str(report)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_names_and_layouts(variables, state):
    synthesis = variables["params"]["synthesis"]
    block = "synthesis.net.2.0"
    kernel = synthesis["net_2"]["up"]["kernel"]
    np.testing.assert_array_equal(
        state[f"{block}.conv1.weight"], kernel[:, ::-1, ::-1].transpose(0, 4, 3, 1, 2)
    )
    offsets = synthesis["net_1"]["conv2"]["offsets"]["kernel"]
    np.testing.assert_array_equal(
        state["synthesis.net.1.0.conv2.mtm_weight"], offsets.transpose(3, 2, 0, 1)
    )
    experts = synthesis["net_3"]["attn_blocks_0"]["ff"]
    projection = state["synthesis.net.3.0.attn_blocks.0.ff.net.1.0.proj.weight"]
    np.testing.assert_array_equal(
        projection, np.concatenate([experts["value"][1].T, experts["gate"][1].T])
    )
    assert state["w_avg"].shape == (4,) and state["synthesis.filter"].shape == (4, 4)


def test_what_is_there_twice_is_the_same(state):
    text = "text_head.transformer.res_blocks.0"
    dense = "synthesis.net.5.0.attn_blocks.0.ff"
    for one, other in (
        (f"{text}.c_fc.weight", f"{text}.mlp.c_fc.weight"),
        (f"{text}.c_proj.bias", f"{text}.mlp.c_proj.bias"),
        (f"{dense}.project_in.proj.weight", f"{dense}.net.0.proj.weight"),
        (f"{dense}.proj_out.bias", f"{dense}.net.2.bias"),
    ):
        np.testing.assert_array_equal(state[one], state[other])


def test_what_does_not_fit_is_said(state):
    lacking = {k: v for k, v in state.items() if k != "mapping.dense1.weight"}
    with pytest.raises(ValueError, match=r"1 missing:\n +mapping.dense1.weight"):
        official.from_official(lacking, MODULE)
    half = "synthesis.net.3.0.attn_blocks.0.ff.net.1.0.proj.weight"
    with pytest.raises(ValueError, match=f"1 missing:\n +{half}\n"):
        official.from_official({k: v for k, v in state.items() if k != half}, MODULE)
    other = {**state, "synthesis.filter": np.ones((4, 4)) / 16}
    with pytest.raises(ValueError, match="synthesis.filter is the constant"):
        official.from_official(other, MODULE)


def test_the_averaged_generator_of_the_released_file(variables, state):
    file = {f"generator_smooth/{name}": array for name, array in state.items()}
    back, report = official.from_official(file | {"step": np.zeros(())}, MODULE)
    assert report.complete and report.ignored == ("step",)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
