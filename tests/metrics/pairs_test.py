"""Pairs of pictures, pixel by pixel."""

import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.metrics.pairs import psnr, squares

RNG = np.random.default_rng(0)
ONE, OTHER = RNG.uniform(-1, 1, (2, 3, 4, 5, 2)).astype(np.float32)


def test_all_pixels_count_where_there_is_no_mask():
    rows = np.asarray(squares({"one": jnp.asarray(ONE), "other": jnp.asarray(OTHER)}))
    np.testing.assert_allclose(rows[:, 0], np.square(ONE - OTHER).sum((1, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(rows[:, 1], 40)
    error = np.square(ONE.astype(np.float64) - OTHER).mean()
    assert psnr(rows) == pytest.approx(20 * np.log10(2) - 10 * np.log10(error), rel=1e-6)


def test_what_a_mask_leaves_out_may_be_anything():
    mask = np.zeros((3, 4, 5, 1), np.float32)
    mask[:2, 1:, 2:] = 1
    other = np.where(mask > 0, OTHER, np.nan)
    rows = np.asarray(
        squares({"one": jnp.asarray(ONE), "other": jnp.asarray(other), "mask": jnp.asarray(mask)})
    )
    np.testing.assert_array_equal(rows[:, 1], [18, 18, 0])
    expected = np.square((ONE - OTHER)[:2, 1:, 2:].astype(np.float64)).mean()
    assert psnr(rows) == pytest.approx(10 * np.log10(4 / expected), rel=1e-6)
    with pytest.raises(ValueError, match="masks of all pairs are empty"):
        psnr(rows[2:])


def test_equal_pictures_have_no_bound():
    assert psnr(np.array([[0.0, 12.0]])) == np.inf
