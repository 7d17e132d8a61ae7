"""Affine warps; numbers of the whole path are the goldens'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.warp import bilinear, warp, warp_by_lookup, warp_by_matrices


def moved(x, y):
    """To the place in the input, shifted by pixels."""
    return jnp.array([[1, 0, x], [0, 1, y], [0, 0, 1]], jnp.float32)


def picture(n, h, w, c=1):
    return jnp.asarray(np.random.default_rng(0).normal(size=(n, h, w, c)), jnp.float32)


def test_whole_pixels_are_moved_and_mirrored_at_the_border():
    images = picture(1, 8, 12)
    still = warp(images, moved(0, 0)[None])
    # Three pixels right and two down in the input, mirrored beyond its last row and column.
    shifted = jnp.pad(images, ((0, 0), (8, 8), (8, 8), (0, 0)), mode="reflect")
    assert warp(images, moved(3, 2)[None]).shape == images.shape
    padded = warp(shifted, moved(0, 0)[None])[:, 10:18, 11:23]
    np.testing.assert_allclose(warp(images, moved(3, 2)[None]), padded, atol=1e-5)
    # The resampling alone takes little from an image, and less from a smooth one.
    smooth = np.cos(np.linspace(0, 3, 12)) + np.zeros((1, 8, 1)) @ np.ones((1, 1, 12))
    smooth = jnp.asarray(smooth, jnp.float32)[..., None]
    np.testing.assert_allclose(warp(smooth, moved(0, 0)[None]), smooth, atol=5e-3)
    assert np.abs(still - images).max() < 0.5 * np.abs(images).max()


def test_x_is_the_columns_and_positive_angles_lead_from_x_to_y():
    images = jnp.zeros((1, 9, 9, 1)).at[0, 4, 7].set(1)  # right of the centre
    quarter = jnp.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = warp(images, quarter[None])[0, :, :, 0]
    # A pixel (x, y) shows the input's (-y, x), so what lay at (3, 0) is seen at (0, -3).
    assert np.unravel_index(np.argmax(turned), turned.shape) == (1, 4)


def test_far_away_is_empty():
    images = 1 + picture(1, 6, 6)
    np.testing.assert_array_equal(warp(images, moved(30, 0)[None]), np.zeros_like(images))


def test_a_sample_does_not_depend_on_the_others():
    images = picture(2, 8, 8)
    maps = jnp.stack([moved(0.3, 0), 2.5 * moved(7, 1)])
    both = warp(images, maps)
    for i in range(2):
        np.testing.assert_allclose(both[i], warp(images[i : i + 1], maps[i : i + 1])[0], atol=1e-6)


def test_matrices_and_lookups_agree_gradients_too():
    images, cotangent = picture(2, 6, 9, 3), picture(2, 6, 9, 3)[::-1]
    turned = jnp.array([[0.8, -0.9, 1.5], [0.7, 1.1, -0.3], [0, 0, 1]])
    maps = jnp.stack([turned, 3 * moved(1, 0)])

    def both(by):
        result, pull = jax.vjp(lambda images: by(images, maps), images)
        return result, pull(cotangent)[0]

    for ours, wanted in zip(both(warp_by_matrices), both(warp_by_lookup), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=2e-5)


def test_bilinear_at_and_between_pixels():
    images = jnp.arange(6.0).reshape(1, 2, 3, 1)
    y = jnp.array([[[0, 1, 0.5]]])
    x = jnp.array([[[2, 2, 0.25]]])
    np.testing.assert_allclose(bilinear(images, y, x)[0, 0, :, 0], [2, 5, 1.75])


def test_samples_stay_on_their_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    images, maps = picture(8, 6, 6), jnp.stack([moved(i / 3, -i) for i in range(8)])

    def pulled(images, maps):
        result, pull = jax.vjp(lambda images: warp(images, maps), images)
        return result, pull(jnp.sin(result))[0]

    given = jax.device_put((images, maps), place)
    compiled = jax.jit(pulled, in_shardings=(place, place)).lower(*given).compile()
    text = compiled.as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text
    for ours, wanted in zip(compiled(*given), pulled(images, maps), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_tiny_images(size):
    images = picture(1, size, size)
    assert np.isfinite(warp(images, moved(0.5, 0.5)[None])).all()
