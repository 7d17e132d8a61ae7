"""What a config's mesh does to the state, by shapes alone."""

import importlib
import math

import jax
import pytest

from ganjax.family import build
from ganjax.parallel.mesh import make_mesh
from ganjax.program import assemble

configs = importlib.import_module("configs.biggan")


def bytes_each(program):
    """Of the state on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(program.state)
    )


def test_fsdp_splits_even_the_smallest_preset():
    family = build(configs.get_config("digits"), "cpu")
    whole = bytes_each(assemble(family, make_mesh()))
    split = bytes_each(assemble(family, make_mesh({"data": 1, "fsdp": 8})))
    assert split < whole / 3


def test_a_batch_that_does_not_divide_is_named():
    family = build(configs.tiny(), "cpu")
    words = r"phase 'd/main' \(from config.train\) is 8, .* over the 7 devices.*multiple of 7"
    with pytest.raises(ValueError, match=words):
        assemble(family, make_mesh({"data": 7}, jax.devices()[:7]))
