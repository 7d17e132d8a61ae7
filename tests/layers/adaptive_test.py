"""Mixed kernels against a kernel for each sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.adaptive import AdaptiveModulatedConv, adaptive_conv2d
from ganjax.layers.convolution import conv2d
from ganjax.layers.modulated import modulated_conv2d


@pytest.mark.parametrize("demodulate", [True, False])
def test_each_sample_has_its_mixture(demodulate):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (2, 4, 4, 3))
    kernels = jax.random.normal(keys[1], (4, 3, 3, 3, 5))
    weights = jax.nn.softmax(jax.random.normal(keys[2], (2, 4)))
    styles = jax.random.normal(keys[3], (2, 3))
    ours = adaptive_conv2d(x, kernels, weights, styles, demodulate=demodulate)
    for sample in range(2):
        one = slice(sample, sample + 1)
        mixture = jnp.tensordot(weights[sample], kernels, 1)
        wanted = modulated_conv2d(
            x[one], mixture, styles[one], demodulate=demodulate, operation=conv2d
        )
        np.testing.assert_allclose(ours[one], wanted, atol=1e-5)


def test_a_new_layer_prefers_no_kernel_and_keeps_the_variance():
    layer = AdaptiveModulatedConv(64, kernels=3)
    x, w = jax.random.normal(jax.random.key(0), (2, 8, 8, 32)), jnp.zeros((2, 16))
    variables = layer.init(jax.random.key(1), x, w)
    assert variables["params"]["kernel"].shape == (3, 3, 3, 32, 64)
    assert np.ptp(variables["params"]["selection"]["bias"]) == 0
    assert np.std(layer.apply(variables, x, w)[:, 2:-2, 2:-2]) == pytest.approx(1, rel=0.25)


def test_kernels_that_cancel_give_numbers():
    """Their length is zero but for rounding, which may be below it."""
    two = 100 * jax.random.normal(jax.random.key(0), (2, 3, 3, 2, 16))
    kernels = jnp.concatenate([two, -two.sum(axis=0, keepdims=True)])
    y = adaptive_conv2d(jnp.ones((1, 4, 4, 2)), kernels, jnp.full((1, 3), 1 / 3), jnp.ones((1, 2)))
    assert jnp.isfinite(y).all()
