import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.metrics.path_length import (
    endpoints,
    lerp,
    perceptual_path_length,
    prepare,
    slerp,
)


def test_endpoints():
    key, indices = jax.random.key(0), jnp.arange(100)
    t, a, b = endpoints(key, indices, 8)
    assert not t.any() and a.shape == b.shape == (100, 8) and (a != b).all()
    full, *both = endpoints(key, indices, 8, "full")
    assert 0 <= full.min() < 0.1 and 0.9 < full.max() < 1
    alone = endpoints(key, indices[41:43], 8, "full")
    jax.tree.map(np.testing.assert_array_equal, [x[41:43] for x in (full, *both)], list(alone))
    with pytest.raises(ValueError, match="sampling='middle'"):
        endpoints(key, indices[:2], 8, "middle")


def test_lines():
    a, b = jax.random.normal(jax.random.key(1), (2, 3, 5, 8))
    t = jnp.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(lerp(a, b, t)[0], a[0])
    np.testing.assert_allclose(lerp(a, b, t)[1], (a[1] + b[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(lerp(a, b, t)[2], b[2], rtol=1e-5)


def test_great_circles():
    a, b = jax.random.normal(jax.random.key(2), (2, 4, 8))
    t = jnp.array([0.0, 0.25, 0.5, 1.0])
    path = slerp(a, b, t)
    np.testing.assert_allclose(jnp.linalg.norm(path, axis=1), 1, rtol=1e-6)
    units = [x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    whole = jnp.arccos((units[0] * units[1]).sum(axis=1))
    gone = jnp.arccos(jnp.clip((units[0] * path).sum(axis=1), -1, 1))
    np.testing.assert_allclose(gone, t * whole, atol=1e-3)
    np.testing.assert_allclose(path[3], units[1][3], atol=1e-6)


def test_pictures_are_cropped_then_shrunk_by_the_factor_of_the_whole():
    x = jnp.broadcast_to(jnp.linspace(-1, 1, 512)[:, None], (512, 512))[None, :, :, None]
    whole = prepare(x)
    assert whole.shape == (1, 256, 256, 3)
    expected = (np.linspace(-1, 1, 512).reshape(256, 2).mean(axis=1) + 1) * 127.5
    np.testing.assert_allclose(whole[0, :, 7, 1], expected, rtol=1e-5, atol=1e-3)
    face = prepare(x, crop=True)
    assert face.shape == (1, 128, 128, 3)
    np.testing.assert_allclose(face[0, :, 0, 0], expected[96:224], rtol=1e-5)
    sideways = prepare(x.transpose(0, 2, 1, 3), crop=True)
    np.testing.assert_allclose(sideways[0, 0, :, 0], expected[64:192], rtol=1e-5)
    assert prepare(jnp.zeros((1, 32, 32, 3))).shape == (1, 32, 32, 3)


def test_odd_pictures_are_refused():
    with pytest.raises(ValueError, match="images are 64x32"):
        prepare(jnp.zeros((1, 64, 32, 3)))
    with pytest.raises(ValueError, match="images are 700x700"):
        prepare(jnp.zeros((1, 700, 700, 1)))
    with pytest.raises(ValueError, match="2 channels"):
        prepare(jnp.zeros((1, 32, 32, 2)))


def test_the_outer_percents_are_left_out_and_their_bounds_stay():
    # The bounds of 250 samples lie at 2.49 and 246.51: 2 and 247 stay.
    x = np.random.default_rng(0).permutation(np.arange(250.0))
    assert perceptual_path_length(x) == pytest.approx(np.arange(2.0, 248.0).mean())
    x[x == 249] = 1e9
    assert perceptual_path_length(x) == pytest.approx(np.arange(2.0, 248.0).mean())
    assert perceptual_path_length(np.array([3.0])) == 3
    with pytest.raises(ValueError, match="path lengths of item 1 are not finite"):
        perceptual_path_length(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="0 path lengths"):
        perceptual_path_length(np.zeros(0))
