"""Films of clips, and the request that a video of so many seconds is."""

import dataclasses
import weakref

import av
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from ganjax import generate, main
from ganjax.family import Request
from ganjax.sampling import clips
from tests.evaluate_videos_test import CLIPS, CONFIG


def clip_of(draws):
    """Frames of one pixel: the clip's number, and the time."""
    number, times = jnp.broadcast_arrays(draws["z"], draws["times"])
    return jnp.stack([number, times], axis=-1)[:, :, None, None]


def drawn(n, frames=3):
    return {"z": jnp.arange(float(n))[:, None], "times": jnp.zeros((n, frames))}


def test_a_film_of_any_length_is_made_in_chunks_of_one_size(monkeypatch):
    monkeypatch.setattr(clips, "CHUNK", 12)
    seen = []

    def sample(draws):
        seen.append(np.asarray(draws["times"]))
        return clip_of(draws)

    request = Request(frames=7, start=10.0, step=0.5)
    film = clips.film(sample, drawn(4), request.moments, request.frames, columns=2)
    pictures = [film.sheet(i) for i in range(film.frames)]
    assert film.frames == 7 and {picture.columns for picture in pictures} == {2}
    shown = np.stack([picture.images for picture in pictures])[..., 0, 0, :]  # [t, n, 2]
    np.testing.assert_array_equal(shown[..., 0], np.tile(np.arange(4.0), (7, 1)))
    np.testing.assert_array_equal(shown[..., 1], 10 + 0.5 * np.tile(np.arange(7.0)[:, None], 4))
    # Three frames at once, and none beyond the end.
    assert [times.shape for times in seen] == [(4, 3)] * 3 and seen[-1].max() == 13


def test_a_film_keeps_the_frames_that_it_shows_alone(monkeypatch):
    monkeypatch.setattr(clips, "CHUNK", 4)
    made = []

    def sample(draws):
        frames = np.array(clip_of(draws), np.float32)
        made.append(weakref.ref(frames))
        return frames

    film = clips.film(sample, drawn(2), Request().moments, 20, columns=2)
    for i in range(film.frames):
        film.sheet(i)
    assert len(made) == 10 and sum(frames() is not None for frames in made) == 1


def test_a_short_film_is_made_at_once():
    film = clips.film(clip_of, drawn(2), Request().moments, 5, columns=2)
    assert film.sheet(4).images[1].ravel().tolist() == [1, 4]


def test_a_strip_has_a_row_for_each_clip():
    sheet = clips.strips(clip_of, drawn(2) | {"times": jnp.array([[0.0, 5, 9]] * 2)})
    assert sheet.columns == 3 and sheet.rows == 2
    assert sheet.images[..., 0].ravel().tolist() == [0, 0, 0, 1, 1, 1]
    assert sheet.images[..., 1].ravel().tolist() == [0, 5, 9] * 2


@pytest.fixture
def model():
    """It makes clips of 4 frames, of data of 8 frames a second."""
    config = CONFIG.copy_and_resolve_references()
    config.data.clip = {"times": "dense", "frames": 4, "rate": 8.0}
    draws = CLIPS.draws
    family = dataclasses.replace(
        CLIPS,
        draws=lambda key, indices, request: draws(
            key, indices, dataclasses.replace(request, times=request.times or (0, 1, 2, 3))
        ),
    )
    return generate.Model(family, {"gain": jnp.float32(0.8)}, config, step=5)


def test_seconds_and_rates_are_those_of_the_data(model):
    request, fps = model.timed(Request())
    assert (request.frames, request.start, request.step, fps) == (4, 0.0, 1.0, 8.0)
    request, fps = model.timed(Request(), seconds=10.0, fps=32.0, start=2.0)
    # Four times as many frames of what moves as fast.
    assert (request.frames, request.start, request.step, fps) == (320, 16.0, 0.25, 32.0)
    with pytest.raises(ValueError, match="0 frames a second; set --fps"):
        model.timed(Request(), fps=0.0)


@pytest.mark.parametrize(("longest", "seconds"), [(24, 3.0), (1000, 8.0)])
def test_videos_of_which_a_few_frames_were_seen_are_longer(model, longest, seconds):
    model.config.data.clip = {"times": "sparse", "max_frames": longest, "rate": 8.0}
    assert model.timed(Request())[0].frames == 8 * seconds


def test_a_single_clip_is_as_long_and_fast_as_asked(model):
    request, _ = model.timed(Request(), seconds=2.0, fps=4.0, start=1.0)
    film = model.clip(3, request=request)
    assert film.frames == 8
    whole = model.clip(3, request=dataclasses.replace(request, frames=24, start=0.0, step=1.0))
    for number in range(8):
        np.testing.assert_array_equal(film.sheet(number).images, whole.sheet(8 + 2 * number).images)
    assert (film.sheet(0).images != film.sheet(7).images).any()


def test_single_clips_of_the_command_line_are_as_long_and_fast(model, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "load", lambda *args, **kwargs: model)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["main"])
    wanted = dict(n=2, seconds=1.5, fps=4.0, out=str(tmp_path / "made"))
    with flagsaver.flagsaver(mode="sample", workdir=str(tmp_path), **wanted):
        main._sample({})
    files = sorted((tmp_path / "made").iterdir())
    assert [file.name for file in files] == ["000000.mp4", "000001.mp4"]
    with av.open(files[1]) as container:
        (stream,) = container.streams.video
        assert stream.average_rate == 4 and len(list(container.decode(stream))) == 6


def test_videos_of_a_family_of_images_go_round():
    config = CONFIG.copy_and_resolve_references()
    config.family = "a.family"
    model = generate.Model(CLIPS, {}, config, step=5)
    assert model.rate is None
    request, fps = model.timed(Request())
    assert (request.frames, request.step, fps) == (240, 1.0, 30.0)
    with pytest.raises(ValueError, match="--start=3 is of families of videos"):
        model.timed(Request(), start=3.0)


def test_a_rate_that_cannot_be(model):
    model.config.data.clip.rate = 0.0
    with pytest.raises(ValueError, match="config.data.clip.rate=0: expected frames a second"):
        model.timed(Request())
