"""Clips, strips and films of TGANv2, and what it has no frames for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tganv2 as configs
from ganjax.family import Request, build

KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def made():
    """The family, and its sampler of a state whose recurrent layer moves."""
    family = build(configs.tiny(), "cpu")
    variables = family.init(jax.random.key(0)).ema
    rng = np.random.default_rng(0)
    variables = {**variables, "params": jax.tree.map(grown(rng), variables["params"])}
    return family, functools.partial(jax.jit(family.sample), variables)


def grown(rng):
    return lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape).astype(leaf.dtype)


def test_a_clip_is_a_function_of_its_number(made):
    family, sample = made
    clips = np.asarray(sample(family.draws(KEY, jnp.arange(3), Request())))
    assert clips.shape == (3, 4, 16, 16, 3)
    one = sample(family.draws(KEY, jnp.array([2]), Request()))
    np.testing.assert_allclose(one[0], clips[2], atol=1e-4)
    assert (
        np.abs(clips[0] - clips[1]).max() > 0.1 and np.abs(clips[:, 0] - clips[:, 3]).max() > 0.01
    )


def test_a_film_is_the_clips_frame_by_frame(made):
    family, sample = made
    request = Request(rows=2, frames=3, start=1.0)
    film = family.videos["clips"](lambda truncation: sample, KEY, request)
    clips = np.asarray(sample(family.draws(KEY, jnp.arange(8), Request())))
    for i in range(3):
        np.testing.assert_allclose(film.sheet(i).images, clips[:, 1 + i], atol=1e-4)
    assert film.frames == 3 and film.sheet(0).columns == 4


def test_a_grid_has_a_row_for_each_video(made):
    family, sample = made
    sheet = family.sheets["grid"](lambda truncation: sample, KEY, Request(rows=3))
    clips = np.asarray(sample(family.draws(KEY, jnp.arange(3), Request())))
    assert (sheet.rows, sheet.columns) == (3, 4)
    np.testing.assert_allclose(sheet.images.reshape(clips.shape), clips, atol=1e-4)


@pytest.mark.parametrize(
    "request_",
    [Request(frames=5), Request(frames=2, start=3.0), Request(frames=2, step=0.5)],
)
def test_times_that_it_has_no_frames_for(made, request_):
    family, sample = made
    with pytest.raises(ValueError, match="makes frames 0 to 3 of a video.*--config.sample.frames"):
        family.videos["clips"](lambda truncation: sample, KEY, request_)
    times = tuple(request_.moments(np.arange(request_.frames)).tolist())
    with pytest.raises(ValueError, match="Leave --fps out"):
        family.draws(KEY, jnp.arange(2), Request(times=times))


def test_what_it_does_not_know_is_an_error_and_no_name_of_a_file(made):
    family, sample = made
    for shown in (family.sheets["grid"], family.videos["clips"]):
        with pytest.raises(ValueError, match="leave --classes out"):
            shown(lambda truncation: sample, KEY, Request(classes=(1,), frames=2))
    with pytest.raises(ValueError, match="leave --truncation out"):
        family.draws(KEY, jnp.arange(2), Request(truncation=0.5))


def test_the_recurrent_layers_can_go_on(made):
    _, sample = made
    config = configs.tiny()
    config.sample.frames = 9
    longer = build(config, "cpu")
    draws = longer.draws(KEY, jnp.arange(2), Request())
    variables = sample.args[0]
    clips = np.asarray(longer.sample(variables, draws))
    assert clips.shape == (2, 9, 16, 16, 3) and np.isfinite(clips).all()
    short = {**draws, "times": draws["times"][:, :4]}
    np.testing.assert_allclose(clips[:, :4], sample(short), atol=1e-4)
