"""What a config of StyleGAN2 or 3 cannot be: a person reads which of its fields to set."""

import re

import pytest

from ganjax import config as configs
from ganjax.families.stylegan2 import checked
from ganjax.family import build
from tests.configs import module


def changed(name, overrides):
    return configs.override(module(name).tiny(), overrides)


@pytest.mark.parametrize("name", ["stylegan2", "stylegan3"])
@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("data.resolution", "24", "a power of two; set one"),
        ("data.resolution", "(16, 32)", "Set config.data.resolution to one number"),
        ("model.g_channel_base", "8", "=8 is too small; set 16 or more"),
        ("model.d_channel_base", "8", "=8 is too small; set 16 or more"),
        ("model.w_dim", "0", "=0 is too small; set 1 or more"),
        ("model.clamp", "-1", "=-1 is too small; set 0 or more"),
        ("model.group_size", "0", "=0 is too small; set 1 or more"),
        ("model.group_size", "3", "8 images .* Set config.model.group_size to 2, or .* of 3"),
        ("train.batch", "0", "=0 is too small; set 1 or more"),
        ("train.microbatches", "3", "Set config.train.batch to"),
    ],
)
def test_what_both_refuse(name, field, value, wanted):
    with pytest.raises(ValueError, match=f"config.{field}.*{wanted}"):
        build(changed(name, {field: value}), "cpu").abstract_state()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("stylegan2", "model.channel_max", "0"),
        ("stylegan2", "model.g_architecture", "dense"),
        ("stylegan2", "model.d_architecture", "dense"),
        ("stylegan3", "model.d_channel_max", "0"),
        ("stylegan3", "model.critical", "3"),
        ("stylegan3", "model.kernel_size", "2"),
        ("stylegan3", "model.margin", "-1"),
        ("stylegan3", "model.magnitude_half_life_images", "0"),
    ],
)
def test_what_one_refuses(name, field, value):
    with pytest.raises(ValueError, match=rf"config\.{re.escape(field)}='?{value}.*; set"):
        build(changed(name, {field: value}), "cpu").abstract_state()


def test_a_batch_smaller_than_a_group_is_one():
    assert checked(changed("stylegan2", {"model.group_size": "16"})) == 16
