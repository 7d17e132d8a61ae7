import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.parallel import grouped
from ganjax.parallel.grouped import Layer, Order

OWNER = {"told": [0, 1, 1, 1, 2, 2], "alike": [0, 1, 2, 0, 1, 2], "once": [2, 0, 1]}
ORDERS = {
    "told": Order(jnp.array(OWNER["told"])),
    "alike": Order(alike=(0, 1, 2, 0, 1, 2)),
    "once": Order(alike=(2, 0, 1)),
}


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape), jnp.float32)


def layer(inputs, outputs, seed=0):
    return Layer(numbers(3, inputs, outputs, seed=seed) / 8, numbers(3, outputs, seed=seed))


X, G = numbers(6, 8, 128), numbers(6, 8, 128, seed=3)
INWARD, OUTWARD = (layer(128, 256), layer(128, 256, seed=1)), layer(256, 128, seed=2)


def join(a, b):
    return a * jnp.tanh(b)


def plain(x, inward, outward, owner):
    x, owner = x[: len(owner)], np.array(owner)

    def through(x, layer):
        return x @ layer.kernel[owner] + layer.bias[owner][:, None]

    return through(join(*(through(x, one) for one in inward)), outward)


@pytest.fixture(scope="module")
def wanted():
    """What the network makes of X, and gradients, by the name of the owner."""
    found = {}
    for name, owner in OWNER.items():
        y, back = jax.vjp(lambda *given: plain(*given, owner), X, INWARD, OUTWARD)  # noqa: B023
        found[name] = y, back(G[: len(owner)])
    return found


def check(got, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-4), got, wanted)


def found(name):
    """What is `wanted`."""
    order, blocks = ORDERS[name], len(OWNER[name])

    def network(x, inward, outward):
        return grouped.grouped_network(join, x[:blocks], inward, outward, order)

    y, back = jax.vjp(network, X, INWARD, OUTWARD)
    return y, back(G[:blocks])


@pytest.mark.parametrize("name", ORDERS)
def test_loops_are_the_plain_network_and_its_gradient(name, wanted):
    check(found(name), wanted[name])


@pytest.mark.parametrize(
    ("name", "vmem"),
    [("told", grouped.VMEM), ("told", 2**20), ("alike", 2**20), ("once", 2**20)],
)  # a kernel as one tile, and in several
def test_a_tpus_kernels_are_the_same(name, vmem, wanted, monkeypatch):
    monkeypatch.setattr(grouped, "VMEM", vmem)
    for what, kernel in grouped.KERNELS.items():
        monkeypatch.setitem(grouped.LOOPS, what, functools.partial(kernel, interpret=True))
    check(found(name), wanted[name])
    x = X[: len(OWNER[name])]
    y = grouped._tpu_forward(join, x, INWARD, OUTWARD, ORDERS[name], interpret=True)
    check(y, wanted[name][0])


def test_small_tiles_are_of_128_columns():
    given = dict(inwards=1, kernels=2, across=3, size=4)
    assert grouped._tile(1024, 512, 128, **given) == 1024
    assert grouped._tile(640, 512, 128, **given) == 128
    assert grouped._tile(4096, 2**16, 512, **given) == 128


def test_gradients_of_parameters_are_float32_for_bfloat16():
    narrow = X.astype(jnp.bfloat16)
    y, back = jax.vjp(
        lambda *given: grouped.grouped_network(join, *given, ORDERS["told"]),
        narrow,
        INWARD,
        OUTWARD,
    )
    by_x, *others = back(G.astype(jnp.bfloat16))
    assert (y.dtype, by_x.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(others)} == {"float32"}
