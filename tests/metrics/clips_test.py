import numpy as np
import pytest

from ganjax.metrics import clips
from ganjax.metrics.clips import fake_times, leading_clips, real_clips, window_clips
from ganjax.metrics.frechet import Moments, distance

LENGTHS = [40, 31, 32, 200, 100, 8, 64, 33]


def test_real_clips_are_one_of_each_of_the_first_long_enough_videos():
    found = real_clips(LENGTHS, 16, stride=2, videos=4)
    np.testing.assert_array_equal(found.videos, [0, 2, 3, 4])
    assert found.frames.shape == (4, 16)
    assert (np.diff(found.frames) == 2).all()
    assert len(real_clips(LENGTHS, 16, stride=2)) == 6
    # The same, whatever comes after.
    again = real_clips(LENGTHS, 16, stride=2)
    np.testing.assert_array_equal(again.frames[:4], found.frames)
    assert (real_clips(LENGTHS, 16, seed=1).frames != real_clips(LENGTHS, 16).frames).any()


def test_every_place_up_to_the_very_last_frame_is_drawn():
    found = real_clips([11] * 400, 3, stride=3)  # span 9, yet frame 4 + 2 * 3 = 10 is reached
    np.testing.assert_array_equal(np.unique(found.frames[:, 0]), [0, 1, 2, 3, 4])


def test_windows_are_any_places_of_any_videos_none_twice():
    lengths = [8, 9, 3, 12]  # 2, 3, none and 6 places of 4 frames, every 2nd
    every = window_clips(lengths, 4, stride=2, count=100)
    places = sorted(zip(every.videos.tolist(), every.frames[:, 0].tolist()))
    assert places == [(0, 0), (0, 1), *((1, i) for i in range(3)), *((3, i) for i in range(6))]
    assert (np.diff(every.frames) == 2).all()
    some = window_clips(lengths, 4, stride=2, count=5)
    assert len({(v, f) for v, f in zip(some.videos, some.frames[:, 0])}) == 5
    assert (window_clips(lengths, 4, 2, 5, seed=1).frames != some.frames).any()
    with pytest.raises(ValueError, match="need videos of 10 frames, but the longest of 4 has 9"):
        window_clips([3, 4, 5, 9], 10)


def test_fake_clips_begin_at_the_first_frame():
    np.testing.assert_array_equal(fake_times(4, 8), [0, 8, 16, 24])
    found = leading_clips([16, 20, 16], 16, videos=2)
    np.testing.assert_array_equal(found.videos, [0, 1])
    np.testing.assert_array_equal(found.frames, [range(16)] * 2)


def test_too_short_videos_are_named():
    with pytest.raises(ValueError, match="every 8th, need videos of 128 frames, but the longest"):
        real_clips([100, 127], 16, stride=8)
    with pytest.raises(ValueError, match="but there is none"):
        real_clips([], 16)
    with pytest.raises(ValueError, match="video 1 has 15"):
        leading_clips([16, 15], 16)
    with pytest.raises(ValueError, match="there is no video"):
        leading_clips([], 16)
    with pytest.raises(ValueError, match="frames=0"):
        real_clips([5], 0)


def test_pixels_are_cut_off():
    x = np.array([-1.1, -1.0, 0.0, 0.0039, 0.996, 1.0], np.float32)
    np.testing.assert_array_equal(clips.to_uint8(x), [0, 0, 128, 128, 254, 255])


def test_frames_go_one_video_after_the_other():
    x = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2, 1)
    np.testing.assert_array_equal(clips.frames_of(x)[3], x[1, 0])


def test_fvd_takes_population_covariances():
    a, b = (Moments.of(x) for x in np.random.default_rng(0).standard_normal((2, 9, 3)))
    assert clips.frechet_video_distance(a, b) == distance(a, b, ddof=0)
    assert clips.frechet_video_distance(a, b) != distance(a, b, ddof=1)
