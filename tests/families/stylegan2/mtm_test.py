"""StyleGAN2 with the modulated transformation module at some of its resolutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import stylegan2 as configs
from ganjax.families.stylegan2.networks import (
    Generator,
    MappingNetwork,
    example_inputs,
    resolutions,
)
from ganjax.families.stylegan2.official import from_official, to_official
from ganjax.family import build
from ganjax.layers.initializers import init_on_host
from ganjax.layers.mtm import conv_at


def with_mtm(groups=("low",), **fields):
    at = conv_at(groups, resolutions(fields["resolution"]))
    return Generator(
        conv_at=at, mapping_network=functools.partial(MappingNetwork, layers=2), **fields
    )


TINY = dict(resolution=16, image_channels=1, latent_dim=6, w_dim=5, channel_base=64, channel_max=8)
PLAIN, MTM = with_mtm((), **TINY), with_mtm(**TINY)


@functools.cache
def start(module):
    variables = init_on_host(module, jax.random.key(0), *example_inputs(module)[0])
    return jax.tree.map(jnp.asarray, variables)


def count(module):
    shapes = jax.eval_shape(
        lambda *inputs: module.init(jax.random.key(0), *inputs), *example_inputs(module)[0]
    )
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_parameters_of_the_papers_table_4():
    """With a base of 27.776 M, which 27.78 is rounded from, all four rows would come out."""
    plain = count(with_mtm((), resolution=128))
    assert plain == 27_752_733
    more = [
        count(with_mtm(at, resolution=128)) - plain
        for at in (("low",), (8, 16, 32), (8, 16, 32, 64))
    ]
    assert more == [774_252, 1_161_378, 1_548_504]
    rows = [27.776e6 + extra for extra in (0, *more)]
    assert [round(row / 1e6, 2) for row in rows] == [27.78, 28.55, 28.94, 29.32]


def test_only_what_keeps_a_chosen_resolution_is_replaced():
    extra = flatten_dict(start(MTM)["params"]).keys() - flatten_dict(start(PLAIN)["params"]).keys()
    assert {path[:4] for path in extra} == {
        ("synthesis", "b8", "conv1", "offsets"),
        ("synthesis", "b16", "conv1", "offsets"),
    }


def test_a_plain_checkpoint_starts_it_with_the_same_images():
    z = jax.random.normal(jax.random.key(1), (2, 6))
    variables, report = from_official(to_official(start(PLAIN), PLAIN), MTM, strict=False)
    assert not report.complete and all(".offsets." in name for name in report.missing)
    variables = jax.tree.map(jnp.asarray, variables)
    np.testing.assert_allclose(MTM.apply(variables, z), PLAIN.apply(start(PLAIN), z), atol=1e-5)


def test_its_own_state_dict_goes_there_and_back():
    again, report = from_official(to_official(start(MTM), MTM), MTM)
    assert report.complete
    jax.tree.map(np.testing.assert_array_equal, again, start(MTM))


@pytest.mark.parametrize("preset, at", [("digits", []), ("digits_mtm", [8, 16])])
def test_the_config_says_where_it_is(preset, at):
    generator = build(configs.get_config(preset), "cpu").networks["g"]
    assert sorted(generator.conv_at) == at


def test_groups_end_where_the_images_do():
    config = configs.get_config("digits")
    config.model.mtm = ("mid", 4)
    generator = build(config, "cpu").networks["g"]
    assert sorted(generator.conv_at) == [4, 32]
