"""Initial values: their distributions, and draws on the host without a compiler."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers import initializers
from ganjax.layers.initializers import init_on_host

DISTRIBUTIONS = [
    initializers.Orthogonal(),
    initializers.Normal(0.02),
    initializers.XavierUniform(),
    initializers.LecunNormal(),
]


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, scale: float):
        kernel = self.param("kernel", initializers.Orthogonal(), (3, 3, x.shape[-1], 8))
        other = self.param("other", initializers.Normal(), (3, 3, x.shape[-1], 8))
        mean = self.variable("stats", "mean", initializers.zeros, None, (8,))
        return scale * (x.sum() * (kernel + other).sum() + mean.value)


def draw(initializer, how, shape):
    if how == "host":
        return initializer.host(np.random.default_rng(0), shape)
    return np.asarray(initializer(jax.random.key(0), shape))


@pytest.mark.parametrize("how", ["host", "traced"])
@pytest.mark.parametrize("shape", [(3, 3, 4, 7), (40, 7), (5, 12), (7, 7)])
def test_orthogonal(how, shape):
    matrix = draw(initializers.Orthogonal(), how, shape).reshape(-1, shape[-1])
    gram = matrix.T @ matrix if len(matrix) >= shape[-1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_orthogonal_has_no_preferred_sign():
    diagonals = [
        initializers.Orthogonal().host(np.random.default_rng(seed), (2, 2))[0, 0]
        for seed in range(200)
    ]
    assert 70 < np.sum(np.array(diagonals) > 0) < 130


@pytest.mark.parametrize("how", ["host", "traced"])
def test_spread(how):
    shape = (3, 3, 50, 70)
    assert draw(initializers.Normal(0.02), how, shape).std() == pytest.approx(0.02, rel=0.02)
    # Uniform on +-a has a standard deviation of a / sqrt(3); torch counts taps in both fans.
    uniform = draw(initializers.XavierUniform(), how, shape)
    limit = np.sqrt(6 / (9 * (50 + 70)))
    assert uniform.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert 0.99 * limit < np.abs(uniform).max() <= limit
    wider = draw(initializers.XavierUniform(3.0), how, shape)
    np.testing.assert_allclose(wider, 3 * uniform, rtol=1e-5)
    # Of fan_in alone, taps included.
    lecun = draw(initializers.LecunNormal(), how, shape)
    assert lecun.std() == pytest.approx(1 / np.sqrt(9 * 50), rel=0.02)


@pytest.mark.parametrize("initializer", DISTRIBUTIONS)
def test_shapes_and_dtypes_agree(initializer):
    shape = (2, 3, 4, 5)
    for how in ("host", "traced"):
        array = draw(initializer, how, shape)
        assert (array.shape, array.dtype) == (shape, np.float32)


def test_on_host_matches_the_shapes_of_init_and_depends_on_key_and_path_alone():
    x = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    variables = init_on_host(Net(), jax.random.key(3), x, scale=2.0)
    traced = jax.eval_shape(lambda x: Net().init(jax.random.key(0), x, scale=2.0), x)
    assert jax.tree.structure(variables) == jax.tree.structure(traced)
    jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype) or 1 / 0, variables, traced)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))

    again = init_on_host(Net(), jax.random.key_data(jax.random.key(3)), x, scale=2.0)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    other = init_on_host(Net(), jax.random.key(4), x, scale=2.0)
    assert (other["params"]["other"] != variables["params"]["other"]).any()


def test_on_host_compiles_nothing():
    events = []
    key = jax.random.key(0)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **details: events.append(event)
    )
    init_on_host(Net(), key, jax.ShapeDtypeStruct((2, 5), jnp.float32), scale=1.0)
    assert events and not [event for event in events if "backend_compile" in event]


def test_a_traced_key_gives_shapes():
    shapes = jax.eval_shape(
        lambda key: init_on_host(Net(), key, jnp.zeros((2, 4)), scale=1.0), jax.random.key(0)
    )
    assert shapes["params"]["kernel"].shape == (3, 3, 4, 8)


def test_foreign_initializers_are_named():
    layer = nn.Dense(3)
    with pytest.raises(ValueError, match=r"\['params'\].*declare it"):
        init_on_host(layer, jax.random.key(0), jnp.zeros((2, 4)))
