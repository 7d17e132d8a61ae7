"""Exact motions of images. (Compared once with the official code: masks equal, images to 1e-5.)"""

import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.motion import (
    shift,
    shift_whole,
    shifted,
    transformed,
    turn,
    turn_filter,
    turn_spectrum,
    turned,
)

SIZE = 32


def smooth(angle=0.0, down=0.0, right=0.0):
    """[1, h, w, 2]: waves below the band's edge, of an image that has been moved."""
    x = np.arange(SIZE) + 0.5 - SIZE / 2
    y, x = np.meshgrid(x, x, indexing="ij")
    # Where a pixel of a counter-clockwise turn comes from, rows counting down.
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    x, y = x - right, y - down
    waves = np.stack([np.sin(0.7 * x + 0.3 * y + 1), np.cos(0.2 * x - 0.8 * y)], axis=-1)
    return jnp.asarray(waves[None], jnp.float32)


def error(moved, wanted):
    image, mask = moved
    assert image.shape == wanted.shape and mask.shape == (*wanted.shape[:3], 1)
    assert set(np.unique(mask)) == {0.0, 1.0}
    return float(jnp.abs((image - wanted) * mask).max()), float(mask.mean())


def test_whole_shifts_lose_what_leaves_the_image():
    wrong, share = error(shift_whole(smooth(), jnp.array([[3, -5]])), smooth(down=3, right=-5))
    assert wrong < 1e-5 and share == pytest.approx((SIZE - 3) * (SIZE - 5) / SIZE**2)


def test_shifts_by_parts_of_a_pixel():
    wrong, share = error(shift(smooth(), jnp.array([[1.3, -2.6]])), smooth(down=1.3, right=-2.6))
    assert wrong < 0.03 and 0.5 < share < 1
    whole, mask = shift(smooth(), jnp.array([[2.0, -3.0]]))
    np.testing.assert_allclose(
        whole * mask, shift_whole(smooth(), jnp.array([[2, -3]]))[0] * mask, atol=1e-5
    )


@pytest.mark.parametrize("angle", [0.4, -1.9])
def test_turns_are_counter_clockwise(angle):
    wrong, share = error(turn(smooth(), jnp.array([angle])), smooth(angle))
    assert wrong < 0.03 and 0.2 < share < 0.6


def test_a_quarter_turn_moves_pixels():
    image = smooth()
    moved, mask = turn(image, jnp.array([np.pi / 2]))
    wanted = jnp.rot90(image, axes=(1, 2))
    assert np.abs((moved - wanted) * mask).max() < 0.02


def test_each_sample_moves_on_its_own():
    both = jnp.concatenate([smooth(), smooth(0.3)])
    angles = jnp.array([0.5, -0.2])
    one = [turn(both[i : i + 1], angles[i : i + 1])[0][0] for i in range(2)]
    np.testing.assert_allclose(turn(both, angles)[0], one, atol=1e-6)


def test_a_turned_spectrum_loses_what_a_turn_back_and_forth_would():
    # The highest frequency along the diagonal is above that of an axis, where a turn would put it.
    checks = jnp.asarray((-1.0) ** np.indices((SIZE, SIZE)).sum(axis=0))[None, :, :, None]
    kept, mask = turn_spectrum(checks, jnp.array([np.pi / 4]))
    assert np.abs(kept * mask).max() < 0.3
    kept, mask = turn_spectrum(checks, jnp.array([0.0]))
    assert np.abs(kept * mask).max() > 0.9
    low, mask = turn_spectrum(smooth(), jnp.array([0.6]))
    np.testing.assert_allclose(low * mask, smooth() * mask, atol=0.02)


def test_the_filter_of_a_turn_has_unit_gain():
    taps = turn_filter(jnp.asarray(0.4), 4)
    assert taps.shape == (47, 47)
    np.testing.assert_allclose(taps.sum(), 1, rtol=1e-5)


def test_transforms_of_coordinates():
    """They say what an image's point shows, the inverse of where it goes; lengths are widths."""
    np.testing.assert_allclose(shifted(0.25, -0.5) @ jnp.array([0.25, -0.5, 1.0]), [0, 0, 1])
    image = smooth()[0]
    moved = transformed(image, shifted(4 / SIZE, 2 / SIZE))
    np.testing.assert_allclose(moved[2:, 4:], image[:-2, :-4], atol=1e-5)
    clockwise = transformed(image, turned(np.pi / 2))
    np.testing.assert_allclose(clockwise, jnp.rot90(image, -1), atol=1e-5)
