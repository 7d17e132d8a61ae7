"""Low-pass filters and the filtered nonlinearity; their numbers are tested by the goldens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.alias_free import filtered_lrelu, lowpass_taps, symmetric_padding
from ganjax.layers.filtering import upfirdn2d


@pytest.mark.parametrize("radial", [False, True])
def test_low_frequencies_pass_and_high_ones_do_not(radial):
    taps = lowpass_taps(24, 4.0, 4.0, 32.0, radial)
    along = taps.sum(axis=0) if radial else taps
    n = np.arange(len(along))
    gain = {f: abs(np.sum(along * np.exp(-2j * np.pi * f / 32 * n))) for f in (0, 1, 8, 12)}
    assert gain[0] == pytest.approx(1, abs=1e-6) and gain[1] == pytest.approx(1, abs=0.02)
    assert max(gain[8], gain[12]) < 0.01


def test_a_radial_filter_has_no_direction():
    taps = lowpass_taps(13, 4.0, 4.0, 32.0, True)
    assert np.isfinite(taps).all()
    np.testing.assert_allclose(taps, taps.T, atol=1e-8)
    along = lowpass_taps(13, 4.0, 4.0, 32.0)

    def lopsided(taps: np.ndarray) -> float:
        """What frequency 5 loses more along a diagonal than along an axis, of 64 samples."""
        gain = np.abs(np.fft.fft2(np.pad(taps, ((0, 51), (0, 51)))))
        return abs(gain[0, 10] - gain[6, 8])

    assert lopsided(taps) < 0.2 * lopsided(np.outer(along, along))


def test_one_tap_is_no_filter():
    assert lowpass_taps(1, 2.0, 2.0, 16.0) is None
    with pytest.raises(ValueError, match="0 taps"):
        lowpass_taps(0, 2.0, 2.0, 16.0)


def test_filters_of_any_rank_are_sums_of_separable_ones():
    x = jax.random.normal(jax.random.key(0), (1, 9, 8, 2))
    taps = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = upfirdn2d(x, taps, up=2, down=3, padding=((2, 1), (0, 3)), gain=2.0)
    # Each tap on its own is separable.
    one = np.zeros_like(taps)
    wanted = jnp.zeros_like(found)
    for place in np.ndindex(taps.shape):
        one[...] = 0
        one[place] = taps[place]
        wanted += upfirdn2d(x, one, up=2, down=3, padding=((2, 1), (0, 3)), gain=2.0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_no_filter_at_all_is_the_nonlinearity():
    x = jax.random.normal(jax.random.key(0), (1, 5, 4, 2))
    bias = jnp.array([0.5, -0.5])
    found = filtered_lrelu(x, bias, gain=2.0, clamp=1.0)
    y = x + bias
    np.testing.assert_allclose(found, jnp.clip(jnp.where(y > 0, y, 0.2 * y) * 2, -1, 1), rtol=1e-6)


def test_a_constant_stays_and_keeps_its_centre():
    """Far from the borders a filter of unit sum changes no constant; a ramp stays centred."""
    up_taps, down_taps = lowpass_taps(12, 4.0, 8.0, 32.0), lowpass_taps(12, 4.0, 8.0, 32.0)
    padding = symmetric_padding((32, 32), (24, 24), up=2, down=2, taps=24)
    ramp = jnp.broadcast_to(100 + jnp.arange(32.0)[None, :, None, None], (1, 32, 32, 1))
    way = dict(up_taps=up_taps, down_taps=down_taps, up=2, down=2, padding=padding, gain=1.0)
    found = filtered_lrelu(ramp, None, slope=1.0, **way)
    assert found.shape == (1, 24, 24, 1)
    middle = found[0, 6:-6, 6:-6, 0]
    np.testing.assert_allclose(middle, ramp[0, 10:-10, 10:-10, 0], atol=0.3)
    np.testing.assert_allclose(middle.mean(), ramp.mean(), atol=0.05)


def test_a_tpu_gets_matrices_whatever_the_size():
    """A depthwise kernel of 24 x 24 taps for each of 256 channels would be the alternative."""
    taps = lowpass_taps(24, 4.0, 8.0, 64.0)
    x = jax.ShapeDtypeStruct((1, 148, 148, 256), jnp.bfloat16)
    layer = jax.jit(lambda x: filtered_lrelu(x, None, up_taps=taps, up=4, padding=((12, 11),) * 2))
    text = layer.trace(x).lower(lowering_platforms=("tpu",)).as_text()
    assert "dot_general" in text and "convolution" not in text
