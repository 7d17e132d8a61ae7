"""Modulated convolution against a kernel for each sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.filtering import conv2d_resample, setup_filter
from ganjax.layers.modulated import ModulatedConv, modulated_conv2d


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [1, 2])
def test_scales_equal_a_kernel_for_each_sample(demodulate, up):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 4, 4, 3))
    kernel = jax.random.normal(keys[1], (3, 3, 3, 5))
    styles = jax.random.normal(keys[2], (2, 3))
    operation = functools.partial(conv2d_resample, taps=setup_filter((1, 3, 3, 1)), up=up)

    def one(x, style):
        weights = kernel * style[:, None]
        if demodulate:
            length = jnp.sqrt(jnp.sum(weights**2, axis=(0, 1, 2)) + 1e-8)
            weights = weights / length
        return operation(x[None], weights)[0]

    wanted = jnp.stack([one(*pair) for pair in zip(x, styles)])
    ours = modulated_conv2d(x, kernel, styles, demodulate=demodulate, operation=operation)
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_a_new_layer_neither_amplifies_nor_attenuates():
    layer = ModulatedConv(64)
    x, w = jax.random.normal(jax.random.key(0), (2, 8, 8, 32)), jnp.zeros((2, 16))
    variables = layer.init(jax.random.key(1), x, w)
    np.testing.assert_array_equal(variables["params"]["affine"]["bias"], 1)
    assert np.std(layer.apply(variables, x, w)[:, 2:-2, 2:-2]) == pytest.approx(1, rel=0.25)
