"""What demodulation adds, and the shapes of the blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.aurora.blocks import (
    ResidualConvBlock,
    convolutions,
    of_batch,
    of_sample,
)
from ganjax.layers.adaptive import adaptive_conv2d
from ganjax.layers.modulated import modulated_conv2d
from ganjax.layers.mtm import ModulatedTransformConv

RNG = np.random.default_rng(0)
KERNELS = jnp.asarray(RNG.standard_normal((2, 3, 3, 4, 5)), jnp.float32)
STYLES = jnp.asarray(RNG.standard_normal((2, 4)), jnp.float32)
X = jnp.asarray(RNG.standard_normal((2, 4, 4, 4)), jnp.float32)
EPS = 0.1


def prenormalised(kernel, styles, mean):
    """The released order: both to a mean square of 1, then modulation and demodulation."""
    kernel = kernel / jnp.sqrt(jnp.mean(jnp.square(kernel), axis=(0, 1, 2)))
    return modulated_conv2d(X, kernel, styles / jnp.sqrt(mean), eps=EPS)


def test_of_batch_is_the_released_order():
    ours = modulated_conv2d(X, KERNELS[0], STYLES, eps=functools.partial(of_batch, eps=EPS))
    released = prenormalised(KERNELS[0], STYLES, jnp.mean(jnp.square(STYLES)))
    np.testing.assert_allclose(ours, released, atol=1e-5)


@pytest.mark.parametrize("rule", [of_batch, of_sample])
def test_mixed_kernels_are_measured_after_they_are_mixed(rule):
    weights = jnp.array([[0.3, 0.7], [0.9, 0.1]])
    eps = functools.partial(rule, eps=EPS)
    ours = adaptive_conv2d(X, KERNELS, weights, STYLES, eps=eps)
    squares = jnp.square(STYLES)
    means = {of_batch: squares.mean(), of_sample: squares.mean(1, keepdims=True)}
    for sample in range(2):
        mixture = jnp.tensordot(weights[sample], KERNELS, 1)
        wanted = prenormalised(mixture, STYLES, means[rule])[sample]
        np.testing.assert_allclose(ours[sample], wanted, atol=1e-5)


@pytest.mark.parametrize("rule, alone", [(of_batch, False), (of_sample, True)])
def test_whether_samples_of_a_batch_are_strangers(rule, alone):
    eps = functools.partial(rule, eps=EPS)
    one, two = (
        modulated_conv2d(X, KERNELS[0], styles, eps=eps)[0]
        for styles in (STYLES, STYLES.at[1].mul(3.0))
    )
    assert np.allclose(one, two, atol=1e-6) == alone


def test_the_second_convolution_has_offsets_and_the_doubling_one_another_name():
    conv, second = convolutions(2, ModulatedTransformConv, eps=of_sample)
    block = ResidualConvBlock(5, conv, second, up=2)
    init = functools.partial(block.init, jax.random.key(0))
    params = jax.eval_shape(init, X, jnp.ones((2, 3)))["params"]
    assert set(params) == {"up", "conv2", "skip_connection"}
    assert params["up"]["kernel"].shape == (2, 3, 3, 4, 5)
    assert "offsets" in params["conv2"] and "offsets" not in params["up"]
