"""Scales of equalised layers, and what ends them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.activation import bias_act
from ganjax.layers.equalized import EqualizedConv, EqualizedDense


def test_dense_of_indices_is_that_of_one_hot_vectors():
    layer = EqualizedDense(4, "lrelu", lr_multiplier=0.1, inputs=3)
    labels = jnp.array([2, 0])
    variables = layer.init(jax.random.key(0), labels)
    variables["params"]["bias"] = jnp.arange(4.0)
    kernel = variables["params"]["kernel"]
    wanted = bias_act(kernel[labels] * 0.1 / np.sqrt(3), jnp.arange(4.0) * 0.1, "lrelu")
    np.testing.assert_allclose(layer.apply(variables, labels), wanted, rtol=1e-6)
    np.testing.assert_allclose(layer.apply(variables, jax.nn.one_hot(labels, 3)), wanted, rtol=1e-6)


def test_initial_values_make_up_for_the_multiplier():
    layer = EqualizedDense(256, lr_multiplier=0.01, initial_bias=1.0)
    x = jax.random.normal(jax.random.key(1), (64, 128))
    variables = layer.init(jax.random.key(0), x)
    assert np.std(variables["params"]["kernel"]) == pytest.approx(100, rel=0.05)
    assert variables["params"]["bias"][0] == 100
    y = layer.apply(variables, x)
    assert np.std(y) == pytest.approx(1, rel=0.1)
    assert np.mean(y) == pytest.approx(1, rel=0.1)


def test_gain_scales_the_clamp():
    layer = EqualizedConv(2, 1, "lrelu", clamp=0.5)
    x = 10 * jax.random.normal(jax.random.key(1), (1, 4, 4, 3))
    variables = layer.init(jax.random.key(0), x)
    assert np.abs(layer.apply(variables, x)).max() == 0.5
    assert np.abs(layer.apply(variables, x, 0.1)).max() == pytest.approx(0.05)


def test_narrow_computation_keeps_parameters_wide():
    layer = EqualizedConv(2, down=2, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(1), (1, 4, 4, 3))
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].dtype == jnp.float32
    y = layer.apply(variables, x)
    assert y.dtype == jnp.bfloat16 and y.shape == (1, 2, 2, 2)
    wide = EqualizedConv(2, down=2).apply(variables, x)
    np.testing.assert_allclose(y.astype(jnp.float32), wide, atol=0.03)


def test_unknown_activation_and_indices_without_classes():
    with pytest.raises(ValueError, match="'mish'; set one of"):
        bias_act(jnp.ones((1, 2)), None, "mish")
    with pytest.raises(ValueError, match="set its `inputs`"):
        EqualizedDense(4).init(jax.random.key(0), jnp.array([1]))
