"""How StyleGAN-V is sampled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import styleganv as configs
from ganjax.family import Request, build

KEY = jax.random.key(5)


@functools.cache
def family():
    return build(configs.tiny(), "cpu")


@functools.cache
def sampler():
    variables = family().init(jax.random.key(0)).ema
    sample = jax.jit(family().sample)
    return lambda truncation: lambda draws: sample(variables, draws)


def test_codes_that_depend_on_all_before_end_with_the_videos_of_training():
    config = configs.tiny()
    config.model.update(trajectory="lstm", encoding="mapped")
    recurrent = build(config, "cpu")
    assert recurrent.draws(KEY, jnp.arange(1), Request(times=(0, 63)))["times"].shape == (1, 2)
    with pytest.raises(ValueError, match="ends with frame 63, .*max_frames=64; frame 64 is wanted"):
        recurrent.draws(KEY, jnp.arange(1), Request(times=(0, 64)))
    request = Request(rows=1, frames=2, start=63.0)
    with pytest.raises(ValueError, match="frame 64 is wanted. Set --start"):
        recurrent.videos["clips"](sampler(), KEY, request)


def strips(name, **request):
    sheet = family().sheets[name](sampler(), KEY, Request(rows=3, **request))
    return sheet, sheet.images.reshape(3, sheet.columns, *sheet.images.shape[1:])


def test_a_grid_has_a_video_a_row():
    sheet, videos = strips("grid", names=tuple("abcdefghij"))
    assert sheet.column_titles == tuple(str(8 * i) for i in range(8))
    assert sheet.row_titles == ("a", "b", "c")
    draws = family().draws(KEY, jnp.arange(3), Request(times=tuple(range(0, 64, 8))))
    np.testing.assert_allclose(videos, sampler()(None)(draws), atol=1e-6)


def drawn_for(name):
    """What a sheet of two times samples with."""
    seen = []

    def bind(truncation):
        return lambda draws: seen.append(draws) or sampler()(truncation)(draws)

    family().sheets[name](bind, KEY, Request(rows=3, times=(0, 40)))
    return seen[0]


def test_content_and_motion_come_apart():
    """Rows of `motion` are of one w, those of `content` of one trajectory of noise."""
    for name, same, other in (("motion", "z", "motion"), ("content", "motion", "z")):
        draws = drawn_for(name)
        assert (draws[same][1:] == draws[same][:1]).all(), name
        assert (draws[other][1:] != draws[other][:1]).any(), name
        labels = draws["label"].tolist()
        assert len(set(labels)) == (1 if name == "motion" else 3)


def test_sheets_of_images_show_first_frames():
    sheet = family().sheets["truncation"](sampler(), KEY, Request(classes=(0, 1)))
    assert sheet.images.shape == (8, 16, 16, 3) and np.isfinite(sheet.images).all()
    mean = sheet.images.reshape(4, 2, -1)[3]
    np.testing.assert_allclose(mean[0], mean[1], atol=0.2)  # classes move each in its own way


def test_a_film_goes_on_from_anywhere():
    request = Request(rows=1, classes=(0, 1), frames=6, start=1000.0, step=0.5)
    film = family().videos["clips"](sampler(), KEY, request)
    shown = np.stack([film.sheet(i).images for i in range(6)], axis=1)
    times = tuple(1000 + 0.5 * i for i in range(6))
    draws = family().draws(KEY, jnp.arange(2), Request(classes=(0, 1), times=times))
    np.testing.assert_allclose(shown, sampler()(None)(draws), atol=1e-5)
