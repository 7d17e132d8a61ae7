"""Self-attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers import attention
from ganjax.layers.attention import SelfAttention
from ganjax.layers.linear import Conv


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (2, 4, 6, 16))


def with_gamma(variables, gamma):
    return {**variables, "params": {**variables["params"], "gamma": jnp.asarray(gamma)}}


def test_starts_as_the_identity(x):
    layer = SelfAttention()
    variables = layer.init(jax.random.key(1), x)
    np.testing.assert_array_equal(layer.apply(variables, x), x)
    assert (layer.apply(with_gamma(variables, 1.0), x) != x).any()


def test_against_a_loop_over_pixels(x):
    layer = SelfAttention(conv=Conv)
    variables = with_gamma(layer.init(jax.random.key(1), x), 0.7)
    kernels = {
        name: np.asarray(leaf["kernel"])[0, 0]
        for name, leaf in variables["params"].items()
        if name != "gamma"
    }
    found = np.asarray(layer.apply(variables, x))

    def pooled(values):
        return values.reshape(2, 2, 3, 2, -1).max(axis=(1, 3)).reshape(6, -1)

    for sample, image in enumerate(np.asarray(x)):
        keys, values = pooled(image @ kernels["phi"]), pooled(image @ kernels["g"])
        for row, column in ((0, 0), (3, 5), (1, 2)):
            pixel = image[row, column]
            scores = np.exp(keys @ (pixel @ kernels["theta"]))  # no division by the dimension
            attended = (scores / scores.sum()) @ values @ kernels["o"]
            np.testing.assert_allclose(
                found[sample, row, column], pixel + 0.7 * attended, rtol=1e-4, atol=1e-5
            )


def test_widths(x):
    layer = SelfAttention()
    params = layer.init(jax.random.key(1), x)["params"]
    shapes = {name: leaf["kernel"].shape[2:] for name, leaf in params.items() if name != "gamma"}
    assert shapes == {"theta": (16, 2), "phi": (16, 2), "g": (16, 8), "o": (8, 16)}


def test_bfloat16(x):
    layer = SelfAttention(conv=Conv)
    variables = with_gamma(layer.init(jax.random.key(1), x), 1.0)
    y = layer.apply(variables, x.astype(jnp.bfloat16))
    wanted = layer.apply(variables, x)
    assert jnp.abs(y - wanted).max() < 0.05 * jnp.abs(wanted).max()


@pytest.mark.parametrize("held", [3, 8, 512])
def test_gradients_are_those_of_softmax(monkeypatch, held):
    monkeypatch.setattr(attention, "QUERIES", held)
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((2, 8, 3), (2, 5, 3), (2, 5, 4), (2, 8, 4))
    *inputs, weights = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes))

    def plain(queries, keys, values):
        scores = jnp.einsum("npd,nqd->npq", queries, keys)
        return jnp.einsum("npq,nqe->npe", jax.nn.softmax(scores, axis=-1), values)

    def gradients(function):
        return jax.grad(lambda *x: jnp.sum(weights * function(*x)), argnums=(0, 1, 2))(*inputs)

    for found, wanted in zip(gradients(attention.attend), gradients(plain)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
