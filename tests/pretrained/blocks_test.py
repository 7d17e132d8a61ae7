"""Official state dicts into variables: what fits, what is missing, what is left over."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.pretrained.blocks import ConvNormRelu, entries_of, from_official, moved, shapes_of
from ganjax.pretrained.network import dotted


class Small(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = ConvNormRelu(4, (3, 1), (2, 1), [(1, 1), (0, 0)], name="first")(x)
        return nn.Dense(5, name="head")(x.mean((1, 2)))


STATE = {
    "first.conv.weight": (4, 3, 3, 1),
    "first.bn.weight": (4,),
    "first.bn.bias": (4,),
    "first.bn.running_mean": (4,),
    "first.bn.running_var": (4,),
    "first.bn.num_batches_tracked": (),
    "head.weight": (5, 4),
    "head.bias": (5,),
}


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0.5, 1.5, shape) for name, shape in STATE.items()}


@pytest.fixture(scope="module")
def entries():
    shapes = shapes_of(Small(), jax.ShapeDtypeStruct((1, 5, 4, 3), np.float32))
    return entries_of(shapes, dotted)


def test_every_number_lands_where_pytorch_uses_it(state, entries):
    variables, report = from_official(state, entries)
    assert report.complete and report.ignored == ("first.bn.num_batches_tracked",)
    x = np.random.default_rng(1).normal(size=(2, 5, 4, 3))
    with jax.enable_x64(True):
        found = Small().apply(variables, jnp.asarray(x))
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    kernel = state["first.conv.weight"][..., 0]  # [o, i, taps]
    y = np.stack([np.einsum("oit,ntwi->nwo", kernel, padded[:, i : i + 3]) for i in (0, 2, 4)], 1)
    y = (y - state["first.bn.running_mean"]) / np.sqrt(state["first.bn.running_var"] + 1e-3)
    y = np.maximum(y * state["first.bn.weight"] + state["first.bn.bias"], 0)
    expected = y.mean((1, 2)) @ state["head.weight"].T + state["head.bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_is_missing_is_named(state, entries):
    del state["head.bias"]
    with pytest.raises(ValueError, match=r"1 missing:\n    head.bias"):
        from_official(state, entries)


def test_what_is_left_over_is_reported(state, entries):
    _, report = from_official(state | {"aux.weight": np.zeros(3)}, entries)
    assert report.unexpected == ("aux.weight",) and not report.complete


def test_another_shape_is_refused(state, entries):
    # As many numbers in another order: a reshape would go unnoticed.
    state["head.weight"] = state["head.weight"].T
    with pytest.raises(ValueError, match=r"head.weight has shape \(4, 5\).* wants \(5, 4\)"):
        from_official(state, entries)


def test_joined_entries_come_apart_again():
    entry = moved(("params", "qkv", "kernel"), ("q", "k", "v"), (1, 0), (2, 6))
    parts = [np.full((2, 2), value) + np.arange(2) for value in (0, 10, 20)]
    joined = entry.decode(parts)
    assert joined.shape == (2, 6) and entry.shape == (2, 2)
    np.testing.assert_array_equal(joined[:, 2], parts[1][0])
    back = entry.encode(joined)
    assert entry.names == ("q", "k", "v") and len(back) == 3
    np.testing.assert_array_equal(back[1], parts[1])


def test_precision_is_the_highest_whatever_the_caller_asks():
    module, x = ConvNormRelu(4, (3, 3)), jnp.zeros((1, 5, 4, 3))
    variables = module.init(jax.random.key(0), x)
    with jax.default_matmul_precision("bfloat16"):
        text = str(jax.make_jaxpr(module.apply)(variables, x))
    assert "HIGHEST" in text and "BF16" not in text
