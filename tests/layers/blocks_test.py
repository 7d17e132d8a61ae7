"""Blocks that are computed again: the same numbers, less kept, parameters gathered in each."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ganjax.layers.blocks import called, recomputed
from ganjax.parallel.mesh import make_mesh
from ganjax.parallel.rules import Rule, fsdp, gathered, shardings

X = jnp.asarray(np.random.default_rng(0).standard_normal((8, 64)), jnp.float32)
LATE = (Rule("Block", fsdp(), late=True), Rule("", fsdp()))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = jnp.sin(nn.Dense(128, name="inward")(x))
        self.sow("told", "mean", jnp.mean(hidden))
        return nn.Dense(64, name="out")(jnp.cos(hidden))


class Network(nn.Module):
    through: object

    @nn.compact
    def __call__(self, x):
        return self.through(Block(), self.through(Block(), nn.Dense(64)(x)))


def gradient(through):
    """Function of parameters and x; it gives what is told, too."""

    def loss(params, x):
        y, told = Network(through).apply({"params": params}, x, mutable=["told"])
        return jnp.mean(jnp.square(y)), told

    return jax.grad(loss, has_aux=True)


@pytest.fixture(scope="module")
def params():
    return Network(called).init(jax.random.key(0), X)["params"]


def test_parameters_gradients_and_what_is_told_stay(params):
    again = Network(recomputed).init(jax.random.key(0), X)["params"]
    jax.tree.map(np.testing.assert_array_equal, again, params)
    plain, other = gradient(called)(params, X), gradient(recomputed)(params, X)
    assert set(other[1]["told"]) == {"Block_0", "Block_1"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), plain, other)


def test_only_what_blocks_are_given_is_kept(params):
    def kept(through):
        def back(params, x):
            return jax.vjp(lambda p: Network(through).apply({"params": p}, x), params)[1]

        shapes = jax.tree.leaves(jax.eval_shape(back, params, X))
        return [leaf.shape for leaf in shapes if leaf.shape == (8, 128)]

    assert kept(called) and not kept(recomputed)


def test_blocks_gather_for_themselves_and_gradients_leave_them_split(params):
    mesh = make_mesh({"data": 1, "fsdp": 8})
    places = shardings(params, LATE, mesh)
    met = gathered(params, LATE, mesh)
    assert met["Block_0"]["inward"]["kernel"].spec == P(None, "fsdp")
    assert met["Dense_0"]["kernel"].spec == P(None, None)

    def on_mesh(params, x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return gradient(recomputed)(jax.lax.with_sharding_constraint(params, met), x)

    placed = jax.device_put(params, places)
    compiled = jax.jit(on_mesh).lower(placed, X).compile()
    found, _ = compiled(placed, X)
    assert "all-gather" in compiled.as_text()
    for name in ("inward", "out"):
        kernel = found["Block_1"][name]["kernel"]
        assert "fsdp" in kernel.sharding.spec
    wanted, _ = gradient(called)(params, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, wanted)
