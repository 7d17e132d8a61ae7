import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.filtering import conv2d_resample, setup_filter
from ganjax.layers.folding import fold, folded_conv2d, side_by_side, unfold


@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("size, pixels, taps", [(1, 2, (1, 3, 3, 1)), (3, 4, (1, 2, 5, 7, 3))])
def test_folded_convolutions_are_plain_ones(up, down, size, pixels, taps):
    """Values and both gradients."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 8, 3)))
    kernel = jnp.asarray(rng.normal(size=(size, size, 3, 5)))
    taps = setup_filter(taps) if up * down > 1 else None

    def plain(x, kernel):
        return conv2d_resample(x, kernel, taps, up=up, down=down)

    def folded(x, kernel):
        x = fold(x, pixels // up)
        y = folded_conv2d(x, kernel, taps, pixels=pixels, up=up, down=down)
        return unfold(y, pixels // down)

    wanted, pull = jax.vjp(plain, x, kernel)
    got, pull_folded = jax.vjp(folded, x, kernel)
    direction = jnp.asarray(rng.normal(size=wanted.shape), wanted.dtype)
    for a, b in zip((got, *pull_folded(direction)), (wanted, *pull(direction)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_pixels_lie_side_by_side_from_where_channels_halve():
    assert side_by_side([512, 512, 256, 128, 64, 32], 128) == [1, 1, 1, 1, 2, 4]
    assert side_by_side([64, 64, 64], 128) == [1, 1, 1]
    assert side_by_side([128, 64, 21, 10], 128) == [1, 2, 1, 1]
    assert side_by_side([128, 64, 32], 0) == [1, 1, 1]
