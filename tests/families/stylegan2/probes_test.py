"""Both ends of a step between two latents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.stylegan2.networks import Generator, MappingNetwork, example_inputs
from ganjax.families.stylegan2.probes import Probes
from ganjax.layers.initializers import init_on_host
from ganjax.metrics.path_length import endpoints

G = Generator(
    8,
    image_channels=1,
    latent_dim=4,
    w_dim=4,
    classes=3,
    channel_base=32,
    channel_max=4,
    dtype=jnp.bfloat16,
    mapping_network=functools.partial(MappingNetwork, layers=1),
)
KEY = jax.random.key(5)
INDICES, LABELS = jnp.array([7, 2]), jnp.array([0, 2])


@pytest.fixture(scope="module")
def variables():
    made = init_on_host(G, jax.random.key(0), *example_inputs(G)[0])
    return jax.tree.map(jnp.asarray, made)


@pytest.fixture(scope="module")
def noisy(variables):
    """The noise of all layers has a strength."""
    return variables | {
        "params": jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.float32(0.5) if "noise_strength" in str(path) else leaf,
            variables["params"],
        )
    }


def path(variables, indices=INDICES, labels=LABELS, **options):
    options = {"space": "w", "sampling": "end", "epsilon": 1e-4} | options
    return Probes(G).by_name()["path"](variables, KEY, indices, labels, **options)


@pytest.mark.parametrize("space", ["w", "z"])
def test_a_whole_step_leads_from_one_latent_to_the_other(variables, space):
    _, *ends = endpoints(jax.random.split(KEY)[0], INDICES, 4)
    pairs = path(variables, space=space, epsilon=1.0)
    for name, z in zip(("one", "other"), ends):
        expected = G.clone(dtype=None).apply(variables, z, LABELS)
        np.testing.assert_allclose(pairs[name], expected, atol=2e-5)


def test_a_pair_is_in_float32_of_its_index_alone_and_has_one_noise(noisy):
    pairs = path(noisy)
    assert pairs["one"].dtype == jnp.float32 and pairs["one"].shape == (2, 8, 8, 1)
    change = np.abs(pairs["one"] - pairs["other"]).max((1, 2, 3))
    assert (0 < change).all() and (change < 1e-2).all()  # another noise changes much more
    alone = path(noisy, INDICES[1:], LABELS[1:])
    np.testing.assert_allclose(alone["one"], pairs["one"][1:], atol=1e-6)
    others = path(noisy, jnp.array([8, 2]))
    assert np.abs(others["one"] - pairs["one"]).max((1, 2, 3))[0] > 1e-2


def test_steps_anywhere_begin_elsewhere(variables):
    ends, anywhere = path(variables), path(variables, sampling="full")
    assert np.abs(ends["one"] - anywhere["one"]).max() > 1e-3
    with pytest.raises(ValueError, match="space='x'; set one of"):
        path(variables, space="x")
