"""Samples of StyleGAN3 under transforms, and their sheet."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.stylegan3.networks import Generator, example_inputs
from ganjax.families.stylegan3.sampling import SHIFTS, TURNS, Sampling
from ganjax.family import Request
from ganjax.layers.initializers import init_on_host

G = Generator(
    16,
    image_channels=1,
    latent_dim=4,
    w_dim=4,
    channel_base=64,
    channel_max=4,
    layers=3,
    critical=1,
    margin=2,
)
SAMPLING = Sampling(G)


@pytest.fixture(scope="module")
def sample():
    variables = init_on_host(G, jax.random.key(0), *example_inputs(G)[0])
    return jax.jit(functools.partial(SAMPLING.sample, jax.tree.map(jnp.asarray, variables)))


def test_the_sheet_moves_the_same_latents(sample):
    assert {"grid", "truncation", "mixing", "latents", "transform"} <= set(SAMPLING.sheets())
    made = SAMPLING.sheets()["transform"]
    sheet = made(lambda truncation: sample, jax.random.key(3), Request())
    assert sheet.rows == len(SHIFTS) + len(TURNS) - 1 and sheet.row_titles[-1] == "90°"
    images = sheet.images.reshape(sheet.rows, sheet.columns, 16, 16, 1)
    z = SAMPLING._z(jax.random.key(3), sheet.columns)
    label, kept = jnp.zeros(sheet.columns, jnp.int32), jnp.ones(sheet.columns)
    np.testing.assert_allclose(
        images[0], sample({"z": z, "label": label, "truncation": kept}), atol=1e-5
    )
    # An eighth of the width is two pixels, to the right.
    np.testing.assert_allclose(images[2][:, 4:-4, 6:-4], images[0][:, 4:-4, 4:-6], atol=0.01)
    assert np.abs(images[2] - images[0]).max() > 0.05
