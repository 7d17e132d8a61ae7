"""The sheet of offsets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.stylegan2.networks import (
    Generator,
    MappingNetwork,
    example_inputs,
    resolutions,
)
from ganjax.families.stylegan2.offsets import ROWS, OffsetSampling, offset_map
from ganjax.families.stylegan2.sampling import COLUMNS, Sampling
from ganjax.family import Request
from ganjax.layers.initializers import init_on_host
from ganjax.layers.mtm import conv_at

G = Generator(
    8,
    image_channels=1,
    latent_dim=4,
    w_dim=4,
    classes=3,
    channel_base=32,
    channel_max=4,
    mapping_network=functools.partial(MappingNetwork, layers=1),
    conv_at=conv_at(("low",), resolutions(8)),
)
SAMPLING = OffsetSampling(Sampling(G))
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def sheet():
    """By scale of the offsets."""
    variables = jax.tree.map(jnp.asarray, init_on_host(G, jax.random.key(0), *example_inputs(G)[0]))
    sample = jax.jit(SAMPLING.sample)

    @functools.cache
    def made(scale):
        params = jax.tree.map(lambda leaf: leaf, variables["params"])
        field = params["synthesis"]["b8"]["conv1"]["offsets"]
        field["scale"] = jnp.zeros(27).at[:18].set(scale)
        now = {**variables, "params": params}
        show = SAMPLING.sheets()["offsets"]
        return show(lambda truncation: functools.partial(sample, now), KEY, Request())

    return made


def rows(sheet):
    assert sheet.columns == COLUMNS and sheet.row_titles == ROWS
    return sheet.images.reshape(3, COLUMNS, 8, 8, 3)


def test_only_the_first_row_has_offsets_and_the_last_shows_them(sheet):
    moved, still, colours = rows(sheet(1.0))
    assert np.abs(moved - still).max() > 0.05
    np.testing.assert_array_equal(still, rows(sheet(0.0))[1])
    assert (colours.max(axis=(0, 1, 2)) > -1).any() and np.ptp(colours[..., 0]) > 0.5
    assert sheet(1.0).column_titles == tuple(str(i % 3) for i in range(COLUMNS))


def test_without_offsets_the_rows_are_the_same_and_the_map_is_black(sheet):
    moved, still, colours = rows(sheet(0.0))
    np.testing.assert_allclose(moved, still, atol=1e-5)
    np.testing.assert_array_equal(colours, -1)


def test_a_generator_without_offsets_says_what_gives_them():
    plain = OffsetSampling(Sampling(G.clone(conv_at=conv_at((), ()))))
    with pytest.raises(ValueError, match=r"config.model.mtm='\(\"low\",\)'"):
        plain.sheets()["offsets"](len, KEY, Request())


@pytest.mark.parametrize(
    "move, colour",
    [
        ((0, 2), (1, -1, -1)),
        ((0, -2), (-1, 1, 1)),
        ((3, 0), (0, 1, -1)),
        ((-3, 0), (0, -1, 1)),
    ],
)
def test_colours_tell_the_direction(move, colour):
    offsets = jnp.zeros((1, 2, 2, 9, 2)).at[0, 1, 0].set(jnp.array(move))
    image = offset_map(offsets, jnp.ones((1, 2, 2, 9)), 4)
    np.testing.assert_allclose(image[0, 2:, :2], np.broadcast_to(colour, (2, 2, 3)), atol=1e-5)
    np.testing.assert_array_equal(image[0, :2], -1)


def test_masked_taps_do_not_count():
    offsets = jnp.zeros((1, 1, 2, 2, 2)).at[0, 0, :, :, 1].set(jnp.array([[1.0, -7.0], [2.0, 0.0]]))
    mask = jnp.array([[[[2.0, 0.0], [1.0, 0.0]]]])
    image = offset_map(offsets, mask, 2)
    np.testing.assert_allclose(image[0, 0, :, 0], [0, 1], atol=1e-5)
