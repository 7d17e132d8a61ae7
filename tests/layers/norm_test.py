"""Batch normalisation, its statistics over a sharded batch, and standing statistics."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ganjax.layers.linear import Dense, Embed
from ganjax.layers.norm import BatchNorm, ConditionalBatchNorm, standing_statistics

SHAPE = (4, 3, 5, 2)


@pytest.fixture
def x():
    return 3 + 2 * jax.random.normal(jax.random.key(0), SHAPE)


def start(layer, *args):
    return layer.init(jax.random.key(1), *args, train=False)


def test_training_normalises_by_the_batch(x):
    layer = BatchNorm(eps=0.0)
    y = layer.apply(start(layer, x), x, train=True)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("unbiased", [True, False])
def test_running_averages(x, unbiased):
    layer = BatchNorm(momentum=0.3, unbiased=unbiased)
    _, moved = layer.apply(start(layer, x), x, train=True, mutable=["batch_stats"])
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2), ddof=int(unbiased))
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.3 * mean, rtol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.7 + 0.3 * var, rtol=1e-5)


def test_evaluation_uses_and_keeps_the_running_averages(x):
    layer = BatchNorm()
    variables = {**start(layer, x), "batch_stats": {"mean": jnp.ones(2), "var": jnp.full(2, 4.0)}}
    y, moved = layer.apply(variables, x, train=False, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (x - 1) / 2, rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, moved["batch_stats"], variables["batch_stats"])


def test_state_is_written_only_where_mutable(x):
    layer = BatchNorm()
    variables = start(layer, x)
    assert set(variables) == {"params", "batch_stats"}
    assert not layer.apply(variables, x, train=True, mutable=["other"])[1]
    _, moved = layer.apply(variables, x, train=True, mutable=["batch_moments"])
    np.testing.assert_allclose(moved["batch_moments"]["mean"], x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(moved["batch_moments"]["var"], x.var((0, 1, 2)), rtol=1e-5)


def test_a_large_mean_costs_no_precision_once_it_is_known(x):
    layer, far = BatchNorm(eps=0.0), 1e4 + x
    variables = start(layer, x)
    stats = {"mean": far.mean((0, 1, 2)) + 1, "var": jnp.ones(2)}
    y = layer.apply({**variables, "batch_stats": stats}, far, train=True)
    np.testing.assert_allclose(y, layer.apply(variables, x, train=True), atol=2e-3)


def test_bfloat16_has_float32_statistics(x):
    layer = BatchNorm()
    half = x.astype(jnp.bfloat16)
    y, moved = layer.apply(start(layer, x), half, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    mean = half.astype(jnp.float32).mean((0, 1, 2))
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)


def test_statistics_are_of_the_whole_sharded_batch_and_share_one_all_reduce():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.random.normal(jax.random.key(0), (16, 3, 3, 2)) + jnp.arange(16.0)[:, None, None, None]
    layer = BatchNorm()
    variables = start(layer, x)

    @jax.jit
    def forward(variables, x):
        return layer.apply(variables, x, train=True, mutable=["batch_stats"])

    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    found, wanted = forward(replicated, sharded), forward(variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)
    text = forward.lower(replicated, sharded).compile().as_text()
    assert text.count("all-reduce(") + text.count("all-reduce-start(") == 1


def test_conditional():
    x = jax.random.normal(jax.random.key(0), SHAPE)
    layer = ConditionalBatchNorm(functools.partial(Dense, use_bias=False))
    y = jax.random.normal(jax.random.key(1), (4, 3))
    variables = start(layer, x, y)
    assert set(variables["params"]) == {"gain", "bias"}
    assert set(variables["batch_stats"]) == {"mean", "var"}
    normal = BatchNorm(affine=False)
    plain = normal.apply(start(normal, x), x, train=True)
    gain, bias = (y @ variables["params"][name]["kernel"] for name in ("gain", "bias"))
    wanted = plain * (1 + gain[:, None, None]) + bias[:, None, None]
    np.testing.assert_allclose(layer.apply(variables, x, y, train=True), wanted, atol=1e-5)


def test_conditional_on_labels():
    layer = ConditionalBatchNorm(functools.partial(Embed, 5))
    x = jax.random.normal(jax.random.key(0), SHAPE)
    labels = jnp.array([0, 4, 2, 2])
    variables = start(layer, x, labels)
    assert variables["params"]["gain"]["embedding"].shape == (5, 2)
    by_class = layer.apply(variables, x, labels, train=True)
    by_weight = layer.apply(variables, x, jax.nn.one_hot(labels, 5), train=True)
    np.testing.assert_allclose(by_class, by_weight, atol=1e-5)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = BatchNorm(name="first")(x, train=train)
        passes = self.variable("other", "passes", lambda: jnp.zeros(()))
        if self.is_mutable_collection("other") and not self.is_initializing():
            passes.value += 1
        return BatchNorm(name="second")(jnp.tanh(x), train=train)


def test_standing_statistics_are_means_over_passes():
    net = Net()
    batches = [scale + jax.random.normal(jax.random.key(scale), SHAPE) for scale in range(3)]
    variables = start(net, batches[0])

    @jax.jit
    def one_pass(variables, batch):
        mutable = ["batch_moments", "batch_stats", "other"]
        return net.apply(variables, batch, train=True, mutable=mutable)[1]

    standing = standing_statistics(one_pass, variables, batches)
    first = standing["batch_stats"]["first"]
    means = np.mean([batch.mean((0, 1, 2)) for batch in batches], axis=0)
    np.testing.assert_allclose(first["mean"], means, rtol=1e-4, atol=1e-5)
    variances = np.mean([batch.var((0, 1, 2)) for batch in batches], axis=0)
    np.testing.assert_allclose(first["var"], variances, rtol=1e-5)
    assert standing["other"]["passes"] == 3  # other state carries over from pass to pass
    assert jax.tree.structure(standing) == jax.tree.structure(variables)
    assert variables["other"]["passes"] == 0


def test_standing_statistics_need_a_batch():
    with pytest.raises(ValueError, match="got no batch"):
        standing_statistics(lambda variables, batch: {}, {}, [])
