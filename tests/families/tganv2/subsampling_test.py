"""What of videos reaches the levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.tganv2.subsampling import every, levels_of


def test_every_is_numpys_slice():
    x = jnp.arange(5 * 6 * 2).reshape(5, 6, 2)
    for offset in (0, 1, 2):
        expected = np.asarray(x)[::2, offset::3]
        np.testing.assert_array_equal(every(x, offset, 3, 2), expected)
        traced = jax.jit(lambda o: every(x, o, 3, 2))(offset)
        np.testing.assert_array_equal(traced, expected)
    # Each video its own.
    own = every(x, jnp.array([0, 2, 1]), 3, 2)
    np.testing.assert_array_equal(own, np.stack([x[0, 0::3], x[2, 2::3], x[4, 1::3]]))
    # Of 5 frames, 2 or 3 are left, which a program cannot leave open.
    assert every(x[:, :5], 1).shape[1] == 2
    with pytest.raises(ValueError, match="5 frames.*set frames to a multiple of 2"):
        every(x[:, :5], jnp.array(1))


def test_offsets_are_nested_and_of_each_video():
    # A clip whose pixels are its video's number and the number of the frame.
    frame = jnp.arange(16.0)[None, :, None, None, None] + 100 * jnp.arange(8.0).reshape(
        8, 1, 1, 1, 1
    )
    clips = jnp.broadcast_to(frame, (8, 16, 8, 16, 1))
    offsets = jnp.array([[i % 2, i // 2 % 2, i // 4] for i in range(8)])
    levels = levels_of(clips, offsets)
    assert [level.shape for level in levels] == [
        (8, 16, 1, 2, 1),
        (4, 8, 2, 4, 1),
        (2, 4, 4, 8, 1),
        (1, 2, 8, 16, 1),
    ]
    np.testing.assert_array_equal(levels[0][..., 0, 0, 0], clips[..., 0, 0, 0])
    # Videos 0, 2, 4, 6 from frame 0; of video 4, at the third level, (0, 0).
    np.testing.assert_array_equal(levels[1][3, :, 0, 0, 0], 600 + np.arange(0, 16, 2))
    np.testing.assert_array_equal(levels[2][1, :, 0, 0, 0], 400 + np.arange(0, 16, 4))
    np.testing.assert_array_equal(levels[3][0, :, 0, 0, 0], [0, 8])
    whole = levels_of(clips, offsets, batches=(1, 1, 1))
    for i in range(8):
        a, b, c = (int(o) for o in offsets[i])
        left = np.arange(16)[a::2][b::2][c::2]
        np.testing.assert_array_equal(whole[3][i, :, 0, 0, 0], 100 * i + left)


def test_pixels_are_means():
    clip = jax.random.normal(jax.random.key(0), (1, 2, 8, 8, 3))
    levels = levels_of(clip, (0, 0, 0), frames=(1, 1, 1), batches=(1, 1, 1))
    for level, size in zip(levels, (8, 4, 2, 1)):
        means = clip.reshape(1, 2, 8 // size, size, 8 // size, size, 3).mean((3, 5))
        np.testing.assert_allclose(level, means, atol=1e-6)


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="8x12 pixels for 4 levels; set config.data.resolution"):
        levels_of(jnp.zeros((1, 8, 8, 12, 3)), (0, 0, 0))
    with pytest.raises(ValueError, match="2 offsets, 3 strides.*set as many"):
        levels_of(jnp.zeros((1, 8, 8, 8, 3)), (0, 0))
