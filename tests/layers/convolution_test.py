"""The fast formulations equal the plain ones, in value and in both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ganjax.layers import convolution
from ganjax.layers.convolution import (
    conv2d,
    conv2d_downsample,
    conv2d_full,
    conv2d_valid,
    upsample_conv2d,
)
from ganjax.layers.resample import downsample, max_pool, upsample


def plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def upsampled(x):
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def pooled(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


PAIRS = {
    "same": (conv2d, plain),
    "down": (conv2d_downsample, lambda x, kernel: pooled(plain(x, kernel))),
    "up": (upsample_conv2d, lambda x, kernel: plain(upsampled(x), kernel)),
}


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (2, 6, 4, 3))


def gradients(f, x, kernel):
    def loss(x, kernel):
        y = f(x, kernel)
        return jnp.vdot(y, jnp.cos(jnp.arange(y.size).reshape(y.shape)))

    return jax.value_and_grad(loss, (0, 1))(x, kernel)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("folded", [True, False])
def test_values_and_gradients(monkeypatch, x, name, size, folded):
    monkeypatch.setattr(convolution, "_folding_pays", lambda pixels, channels: folded)
    ours, reference = PAIRS[name]
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 5))
    np.testing.assert_allclose(ours(x, kernel), reference(x, kernel), atol=1e-5)
    found, wanted = gradients(ours, x, kernel), gradients(reference, x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 5e-5), found, wanted)


@pytest.mark.parametrize("size", [2, 4, 6])
def test_both_formulations_of_the_transposed_convolution(x, size):
    # On CPU only one of them runs, the other is for accelerators.
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 5))
    dilated = convolution._dilated(x, kernel, stride=2, pad=size // 2)
    np.testing.assert_allclose(convolution._polyphase(x, kernel), dilated, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_without_padding_and_with_all_of_it(x, size):
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 5))

    def padded(pad):
        return lambda x, kernel: lax.conv_general_dilated(
            x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=convolution.LAYOUT
        )

    for ours, reference in ((conv2d_valid, padded(0)), (conv2d_full, padded(size - 1))):
        np.testing.assert_allclose(ours(x, kernel), reference(x, kernel), atol=1e-5)
        found, wanted = gradients(ours, x, kernel), gradients(reference, x, kernel)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 5e-5), found, wanted)


@pytest.mark.parametrize("name", PAIRS)
def test_second_derivatives(x, name):
    # Gradient penalties differentiate through the gradient.
    ours, reference = PAIRS[name]
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))

    def penalty(f, kernel):
        return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.tanh(f(x, kernel))))(x) ** 2)

    found = jax.grad(lambda kernel: penalty(ours, kernel))(kernel)
    wanted = jax.grad(lambda kernel: penalty(reference, kernel))(kernel)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize("name", PAIRS)
def test_mixed_precision_keeps_the_gradient_of_kernels_wide(x, name):
    ours, reference = PAIRS[name]
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    half = x.astype(jnp.bfloat16)
    assert ours(half, kernel).dtype == jnp.bfloat16
    _, (dx, dkernel) = gradients(ours, half, kernel)
    assert (dx.dtype, dkernel.dtype) == (jnp.bfloat16, jnp.float32)
    _, (_, wanted) = gradients(reference, x, kernel)
    np.testing.assert_allclose(dkernel, wanted, atol=0.02 * jnp.abs(wanted).max())


def test_resampling(x):
    np.testing.assert_array_equal(upsample(x), upsampled(x))
    np.testing.assert_allclose(downsample(x), pooled(x), atol=1e-6)
    n, h, w, c = x.shape
    np.testing.assert_array_equal(
        max_pool(x), x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    )
