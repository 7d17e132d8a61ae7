"""Bias, activation, gain, clamp: values, and derivatives of any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.activation import ACTIVATIONS, bias_act

X = jnp.array([[-3.0, -0.4, -0.1, 0.1], [0.4, 2.0, 3.0, -2.5]])
BIAS = jnp.array([0.05, -0.05, 0.02, 0.0])


def plain(x, name, gain, clamp, slope=0.2):
    """As the docstring says, differentiated by JAX."""
    y = ACTIVATIONS[name].function(x + BIAS, slope) * gain
    return y if clamp is None else jnp.clip(y, -clamp, clamp)


@pytest.mark.parametrize("name", ["linear", "relu", "lrelu", "tanh"])
@pytest.mark.parametrize(("gain", "clamp"), [(1.0, None), (1.5, 0.6), (-1.5, 0.6)])
def test_values_and_gradients_are_those_of_the_plain_formula(name, gain, clamp):
    weights = np.arange(1.0, 9.0, dtype=np.float32).reshape(X.shape)

    def ours(x):
        return jnp.sum(weights * bias_act(x, BIAS, name, gain=gain, clamp=clamp))

    def theirs(x):
        return jnp.sum(weights * plain(x, name, gain, clamp))

    np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(X), jax.grad(theirs)(X), rtol=1e-6)

    def squared(function):
        return lambda x: jnp.sum(jnp.square(jax.grad(lambda x: jnp.square(function(x)))(x)))

    np.testing.assert_allclose(
        jax.grad(squared(ours))(X), jax.grad(squared(theirs))(X), rtol=1e-4, atol=1e-3
    )


def test_what_is_clipped_has_no_gradient():
    got = jax.grad(lambda x: jnp.sum(bias_act(x, None, "lrelu", gain=1.0, clamp=0.5)))(X)
    np.testing.assert_allclose(got, [[0, 0.2, 0.2, 1], [1, 0, 0, 0]], rtol=1e-6)


def test_narrow_numbers_are_rounded_once():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 4)), jnp.bfloat16)
    got = bias_act(x, BIAS, "lrelu", clamp=1.0)
    wide = bias_act(x.astype(jnp.float32), BIAS, "lrelu", clamp=1.0)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, wide.astype(jnp.bfloat16))
    assert bias_act(x, dtype=jnp.float32).dtype == jnp.float32
