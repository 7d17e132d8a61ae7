"""Samples and sheets of StyleGAN2."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.adversarial.augment import pipe
from ganjax.families.stylegan2.networks import Generator, MappingNetwork, example_inputs
from ganjax.families.stylegan2.sampling import PSIS, Sampling, absent, augmented
from ganjax.family import Request
from ganjax.layers.initializers import init_on_host

G = Generator(
    8,
    image_channels=1,
    latent_dim=4,
    w_dim=4,
    classes=3,
    channel_base=32,
    channel_max=4,
    mapping_network=functools.partial(MappingNetwork, layers=1),
)
SAMPLING = Sampling(G)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def sample():
    variables = init_on_host(G, jax.random.key(0), *example_inputs(G)[0])
    variables = jax.tree.map(jnp.asarray, variables)
    return functools.partial(jax.jit(SAMPLING.sample), variables)


def test_a_sample_is_a_function_of_its_index():
    many = SAMPLING.draws(KEY, jnp.arange(5), Request())
    one = SAMPLING.draws(KEY, jnp.array([3]), Request())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[3:4], b), many, one)
    np.testing.assert_array_equal(many["label"], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(many["truncation"], 1)
    asked = SAMPLING.draws(KEY, jnp.arange(2), Request((2,), truncation=0.5))
    np.testing.assert_array_equal(asked["label"], 2)
    np.testing.assert_array_equal(asked["truncation"], 0.5)


def test_sheets(sample):
    sheets = SAMPLING.sheets()
    request = Request(rows=2, names=("a", "b", "c"))
    grid = sheets["grid"](lambda truncation: sample, KEY, request)
    assert (len(grid.images), grid.columns, grid.column_titles) == (6, 3, ("a", "b", "c"))
    truncated = sheets["truncation"](lambda truncation: sample, KEY, request)
    assert truncated.rows == len(PSIS) and truncated.row_titles[-1] == "0"
    latents = sheets["latents"](lambda truncation: sample, KEY, request)
    assert latents.rows == 2 and latents.row_titles == ("a", "b")


def test_the_augment_sheet_shows_ever_more_of_the_pipe(sample):
    request, grid = Request(rows=2), SAMPLING.sheets()["grid"]
    sheet = augmented(grid, pipe("color"))(lambda truncation: sample, KEY, request)
    assert (sheet.rows, sheet.columns, sheet.column_titles[1]) == (2, 6, "p = 0.2")
    images = sheet.images.reshape(2, 6, -1)
    samples = grid(lambda truncation: sample, KEY, request).images[:2].reshape(2, -1)
    np.testing.assert_allclose(images[:, 0], samples, atol=1e-6)
    assert np.abs(images).max() <= 1
    assert (np.abs(images[:, 5] - samples).max(1) > 0.05).all()


def test_a_sheet_of_what_a_run_lacks():
    with pytest.raises(ValueError, match="no sheet 'augment' of this run, which has no spice: add"):
        absent("augment", "spice: add some")(len, KEY, Request())


def test_mixing_shows_its_sources_each_of_its_class(sample):
    """Same sources, no mixing: what stands in the first row and column."""
    request = Request(classes=(1, 2, 0), rows=2, names=("a", "b", "c"))
    sheet = SAMPLING.sheets()["mixing"](lambda truncation: sample, KEY, request)
    assert (sheet.columns, sheet.rows) == (4, 3)
    assert (sheet.column_titles, sheet.row_titles) == (("", "b", "c", "a"), ("", "b", "c"))
    images = sheet.images.reshape(3, 4, 8, 8, 1)
    z = SAMPLING._z(KEY, 6)
    classes = {"label": jnp.array([1, 2], jnp.int32), "truncation": jnp.ones(2)}
    np.testing.assert_allclose(images[1:, 0], sample({"z": z[4:], **classes}), atol=1e-5)
    np.testing.assert_allclose(images[0, 1:3], sample({"z": z[1:3], **classes}), atol=1e-5)
    # Row 1, of class 1, with column 2, of class 2.
    apply = functools.partial(G.apply, sample.args[0])
    coarse, fine = apply(z[jnp.array([4, 2])], classes["label"], method="styles")
    mixed = apply(jnp.concatenate([coarse[:2], fine[2:]])[None], method="synthesize")
    np.testing.assert_allclose(images[1, 2], jnp.clip(mixed, -1, 1)[0], atol=1e-5)
    mean = sample({"z": z[:1], "truncation": jnp.zeros(1), "label": jnp.zeros(1, jnp.int32)})
    np.testing.assert_allclose(images[0, 0], mean[0], atol=1e-5)


def test_the_mean_sheet_shows_the_mean_w_and_each_class_own(sample, monkeypatch):
    monkeypatch.setattr("ganjax.families.stylegan2.sampling.MEAN", 20)
    sheet = SAMPLING.sheets()["mean"](lambda truncation: sample, KEY, Request())
    assert (sheet.columns, sheet.column_titles) == (4, ("all", "0", "1", "2"))
    one = {"z": SAMPLING._z(KEY, 1), "label": jnp.zeros(1, jnp.int32), "truncation": jnp.zeros(1)}
    np.testing.assert_allclose(sheet.images[:1], sample(one), atol=1e-5)
    # w of class 2, latent by latent.
    apply = functools.partial(G.apply, sample.args[0])
    ws = apply(SAMPLING._z(KEY, 20), jnp.full(20, 2, jnp.int32), method="styles")
    wanted = apply(jnp.mean(ws, axis=0, keepdims=True), method="synthesize")
    np.testing.assert_allclose(sheet.images[3:], jnp.clip(wanted, -1, 1), atol=1e-5)
    shown = sheet.images.reshape(4, -1)
    assert (np.abs(shown[1:, None] - shown[1:]).max(axis=-1) > 1e-4).sum() == 6


def test_the_videos_pass_the_same_pictures_on_different_ways(sample):
    request = Request(rows=1, names=("a", "b", "c"), frames=8, anchors=2, truncation=0.5)
    z, w = (SAMPLING.videos()[n](lambda truncation: sample, KEY, request) for n in ("z", "w"))
    assert z.frames == w.frames == 8 and w.sheet(0).column_titles == ("a", "b", "c")
    anchors = SAMPLING._z(KEY, 6).reshape(3, 2, 4)
    label = jnp.arange(3, dtype=jnp.int32)
    for k, i in enumerate((0, 4)):
        draws = {"z": anchors[:, k], "truncation": jnp.full(3, 0.5), "label": label}
        for video in (z, w):
            np.testing.assert_allclose(video.sheet(i).images, sample(draws), atol=1e-5)
    assert np.abs(z.sheet(2).images - w.sheet(2).images).max() > 1e-3
    np.testing.assert_allclose(w.sheet(8).images, w.sheet(0).images, atol=1e-6)


def test_coarse_layers_come_first(sample):
    """A cutoff after all layers shows the coarse source, one before all the fine one."""
    coarse, fine = SAMPLING._z(KEY, 2)[:, None]
    plain = {"truncation": jnp.ones(1), "label": jnp.zeros(1, jnp.int32)}
    both = {"z": coarse, "fine_z": fine, "fine_label": plain["label"], **plain}
    for cutoff, z in ((G.num_ws, coarse), (0, fine)):
        mixed = sample({**both, "cutoff": jnp.array([cutoff])})
        np.testing.assert_allclose(mixed, sample({"z": z, **plain}), atol=1e-5)


def test_unconditional_sheets_have_no_titles():
    sampling = Sampling(G.clone(classes=0))
    black = lambda draws: jnp.zeros((len(draws["z"]), 8, 8, 1))  # noqa: E731
    for video in sampling.videos().values():
        first = video(lambda truncation: black, KEY, Request(rows=2)).sheet(0)
        assert (len(first.images), first.columns, first.column_titles) == (8, 4, ())
    for name, sheet in sampling.sheets().items():
        made = sheet(lambda truncation: black, KEY, Request(rows=2))
        assert made.column_titles == () and (made.row_titles == () or name == "truncation")
