"""The modulated transformation module: what it starts as, what its offsets do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.adaptive import AdaptiveModulatedConv
from ganjax.layers.modulated import ModulatedConv
from ganjax.layers.mtm import ModulatedTransformConv, OffsetField, conv_at

X = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
W = jax.random.normal(jax.random.key(1), (2, 6))


def learned(module, scale=0.5):
    """Variables whose offsets are not zero."""
    params = module.init(jax.random.key(2), X, W)["params"]
    field = {**params["offsets"], "scale": jnp.full((27,), scale)}
    return {"params": {**params, "offsets": field}}


def plain(variables):
    rest = {k: v for k, v in variables["params"].items() if k != "offsets"}
    return {"params": rest}


@pytest.mark.parametrize(
    "conv", [ModulatedConv, functools.partial(AdaptiveModulatedConv, kernels=2)]
)
@pytest.mark.parametrize("demodulate", [True, False])
def test_a_new_module_is_the_plain_convolution_to_rounding(conv, demodulate):
    module = ModulatedTransformConv(5, demodulate=demodulate, conv=conv)
    variables = module.init(jax.random.key(2), X, W)
    same = conv(features=5, demodulate=demodulate).apply(plain(variables), X, W)
    np.testing.assert_allclose(module.apply(variables, X, W), same, atol=1e-5)


def test_strength_zero_leaves_the_mask():
    module = ModulatedTransformConv(5)
    variables = learned(module)
    offsets, mask = OffsetField().apply({"params": variables["params"]["offsets"]}, X, W)
    assert np.std(offsets) == pytest.approx(0.5, rel=0.3)
    assert 0 < mask.min() < 0.9 and 1.1 < mask.max() < 2
    still = ModulatedTransformConv(5, strength=0.0).apply(variables, X, W)
    assert np.abs(still - module.apply(variables, X, W)).max() > 0.1
    field = {
        **variables["params"]["offsets"],
        "scale": jnp.repeat(jnp.array([0.0, 0.5]), jnp.array([18, 9]), total_repeat_length=27),
    }
    unmoved = {"params": {**variables["params"], "offsets": field}}
    np.testing.assert_allclose(still, module.apply(unmoved, X, W), atol=1e-6)


def test_the_style_alone_moves_the_places():
    module = ModulatedTransformConv(5)
    field = {"params": learned(module)["params"]["offsets"]}
    twice = jnp.concatenate([X[:1], X[:1]])
    offsets, _ = OffsetField().apply(field, twice, W)
    assert np.abs(offsets[0] - offsets[1]).max() > 0.1


def test_it_learns_from_the_start():
    """With a symmetric derivative at pixels the first offset would never come."""
    module = ModulatedTransformConv(5)
    variables = module.init(jax.random.key(2), X, W)
    wanted = jax.random.normal(jax.random.key(3), (2, 4, 4, 5))
    gradient = jax.grad(lambda v: jnp.vdot(module.apply(v, X, W), wanted))(variables)["params"]
    for name in ("scale", "bias"):
        assert jnp.all(jnp.abs(gradient["offsets"][name]) > 0), name


def test_parameters_are_those_of_equation_4():
    module = ModulatedTransformConv(512)
    shapes = jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 512)), jnp.zeros((1, 512))
    )["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["offsets"]))
    # A 3x3 convolution to 27 channels, its style from w, and 27 scales and biases.
    assert count == 27 * 512 * 9 + 512 * 512 + 512 + 2 * 27


def test_a_convolution_that_doubles_the_resolution_stays_plain():
    module = ModulatedTransformConv(5, up=2)
    variables = module.init(jax.random.key(2), X, W)
    assert set(variables["params"]) == {"kernel", "affine"}
    assert module.apply(variables, X, W).shape == (2, 8, 8, 5)


def test_groups_are_those_of_table_4():
    sizes = (4, 8, 16, 32, 64)
    assert dict(conv_at(("low",), sizes)) == {size: ModulatedTransformConv for size in (8, 16)}
    assert sorted(conv_at(("mid", 4, "low", 8), sizes)) == [4, 8, 16, 32, 64]


@pytest.mark.parametrize("group", ["lo", "high", 12])
def test_a_group_that_the_generator_does_not_have_is_refused(group):
    with pytest.raises(ValueError, match=rf"\('low', {group!r}\) has {group!r}.*\[4, 8\]"):
        conv_at(("low", group), (4, 8))
