"""Resampling against its definition: zeros, padding, filter, every so many pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ganjax.layers import filtering
from ganjax.layers.filtering import (
    conv2d_resample,
    downsample2d,
    filter2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

ROWS, COLUMNS = np.array([1.0, 2.0, 4.0], np.float32), np.array([3.0, 1.0, 5.0, 2.0], np.float32)
UNSEPARABLE = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)


def by_definition(x, taps, up, down, pads, flip, gain):
    n, h, w, c = x.shape
    y = np.zeros((n, h * up[0], w * up[1], c))
    y[:, :: up[0], :: up[1]] = x
    grown = [(0, 0), *((max(low, 0), max(high, 0)) for low, high in pads), (0, 0)]
    y = np.pad(y, grown)
    for axis, (low, high) in enumerate(pads, 1):
        y = np.moveaxis(y, axis, 0)
        y = y[max(-low, 0) : len(y) - max(-high, 0)]
        y = np.moveaxis(y, 0, axis)
    taps = taps if flip else taps[::-1, ::-1]
    kh, kw = taps.shape
    windows = np.lib.stride_tricks.sliding_window_view(y, (kh, kw), (1, 2))
    return np.einsum("nhwcij,ij->nhwc", windows, taps)[:, :: down[0], :: down[1]] * gain


@pytest.mark.parametrize("taps", [np.outer(ROWS, COLUMNS), UNSEPARABLE], ids=["bands", "kernel"])
@pytest.mark.parametrize(
    "up, down, pads, flip",
    [
        ((2, 3), (1, 2), ((1, 3), (2, 0)), False),
        ((1, 1), (2, 1), ((2, -1), (-1, 4)), True),
        ((3, 1), (2, 2), ((-2, 1), (3, 3)), True),
    ],
)
def test_definition(taps, up, down, pads, flip):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    ours = upfirdn2d(jnp.asarray(x), taps, up=up, down=down, padding=pads, flip=flip, gain=1.7)
    wanted = by_definition(x, taps, up, down, pads, flip, 1.7)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4)
    # What accelerators run where images are large.
    kernels = 1.7 * filtering._depthwise(jnp.asarray(x), taps, up, down, pads, flip)
    np.testing.assert_allclose(kernels, wanted, rtol=1e-4, atol=1e-4)


def test_one_dimensional_taps_serve_both_axes_and_may_be_traced():
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 2))
    both = filter2d(x, np.outer(COLUMNS, COLUMNS))
    np.testing.assert_allclose(filter2d(x, COLUMNS), both, rtol=1e-5)
    gradient = jax.grad(lambda taps: filter2d(x, taps).sum())(jnp.asarray(COLUMNS))
    assert np.isfinite(gradient).all() and np.abs(gradient).min() > 0


def test_resampling_keeps_brightness_and_size():
    taps = setup_filter((1, 3, 3, 1))
    x = jnp.ones((1, 8, 8, 1))
    up, down = upsample2d(x, taps), downsample2d(x, taps)
    assert (up.shape, down.shape) == ((1, 16, 16, 1), (1, 4, 4, 1))
    np.testing.assert_allclose(up[0, 2:-2, 2:-2], 1, rtol=1e-6)
    np.testing.assert_allclose(down[0, 1:-1, 1:-1], 1, rtol=1e-6)


def test_fewer_pixels_than_taps_are_an_error():
    with pytest.raises(ValueError, match="pad more"):
        upfirdn2d(jnp.ones((1, 3, 3, 1)), setup_filter((1, 3, 3, 1)))


@pytest.mark.parametrize("limit", [0, 256])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("up, down", [(2, 1), (1, 2)])
def test_phases_equal_transposed_and_strided_convolutions(monkeypatch, size, up, down, limit):
    """What a CPU runs equals what accelerators run, by the size of the images."""
    monkeypatch.setattr(filtering, "LARGE", limit)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 6, 4, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 3, 5)), jnp.float32)
    taps = np.outer(ROWS, COLUMNS)

    def value_and_gradients(platform):
        monkeypatch.setattr(
            lax, "platform_dependent", lambda *inputs, **forms: forms[platform](*inputs)
        )

        def loss(x, kernel):
            y = conv2d_resample(x, kernel, taps, up=up, down=down)
            return jnp.vdot(y, jnp.cos(jnp.arange(y.size)).reshape(y.shape)), y

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(x, kernel)

    found, wanted = value_and_gradients("cpu"), value_and_gradients("default")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-2), found, wanted)


@pytest.mark.parametrize("up, down", [(2, 1), (1, 2)])
def test_a_compiled_program_has_no_branch_and_no_slow_convolution(up, down):
    taps = setup_filter((1, 3, 3, 1))

    def penalty(x, kernel):
        def total(x):
            return jnp.sum(conv2d_resample(x, kernel, taps, up=up, down=down) ** 2)

        return jnp.sum(jax.grad(total)(x) ** 2)

    gradient = jax.jit(jax.grad(penalty, (0, 1)))
    compiled = gradient.lower(jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 2))).compile().as_text()
    assert "convolution" in compiled
    # Holes, and more taps than pixels, for which operands are swapped: twenty times as slow.
    for form in ("conditional", "lhs_dilate", "rhs_reversal"):
        assert form not in compiled, form
