"""What each of the discriminator's predictions depends on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.aurora.discriminator import Discriminator, Predictor, example_inputs
from ganjax.families.aurora.text import TextHead
from ganjax.layers.initializers import init_on_host

SMALL = dict(
    text_dim=5,
    channel_base=64,
    channel_max=8,
    outputs=(8,),
    predictor=functools.partial(Predictor, layers=1),
    text_features=6,
    text_head=functools.partial(TextHead, layers=0),
    attention=(8,),
    heads=2,
    group_size=2,
)
RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


IMAGES = {size: normal(4, size, size, 3) for size in (4, 8, 16)}
TEXT, END = normal(4, 7, 5), jnp.array([2, 6, 3, 1])


@pytest.fixture(scope="module")
def made():
    module = Discriminator((4, 8, 16), **SMALL)
    start = init_on_host(module, jax.random.key(0), *example_inputs(module)[0])
    variables = jax.tree.map(lambda leaf: normal(*leaf.shape), start)
    return variables, functools.partial(jax.jit(module.apply), variables), module


def test_pictures_and_predictions(made):
    _, apply, _ = made
    logits = apply(IMAGES, TEXT, END)
    # At 4x4 one of each of three pictures, at 8x8 one of the largest, which has come from above.
    assert logits.shape == (4, 4) and logits.dtype == jnp.float32
    for size, seen in ((16, [0, 3]), (8, [1]), (4, [2])):
        other = apply({**IMAGES, size: normal(4, size, size, 3)}, TEXT, END)
        changed = np.flatnonzero(np.any(np.asarray(other != logits), axis=0))
        np.testing.assert_array_equal(changed, seen)


def test_smaller_pictures_alone_are_judged_alike(made):
    _, apply, _ = made
    small = apply({size: IMAGES[size] for size in (4, 8)}, TEXT, END)
    np.testing.assert_allclose(small, apply(IMAGES, TEXT, END)[:, 1:3], rtol=1e-4, atol=1e-5)


def test_every_prediction_sees_its_own_text_and_no_other(made):
    variables, apply, module = made
    logits = apply(IMAGES, TEXT, END)
    other = apply(IMAGES, TEXT.at[0].add(1.0), END)
    assert (other[0] != logits[0]).all()
    np.testing.assert_array_equal(other[1:], logits[1:])

    def ask(method, *inputs):
        return module.apply(variables, *inputs, method=method)

    # Features are looked at once, whatever texts they are held against.
    looks = ask("look", IMAGES)
    wrong = ask("judge", looks, ask("describe", jnp.roll(TEXT, 1, 0), jnp.roll(END, 1)))
    again = apply(IMAGES, jnp.roll(TEXT, 1, 0), jnp.roll(END, 1))
    np.testing.assert_allclose(wrong, again, rtol=1e-4, atol=1e-4)


def test_a_prediction_has_a_part_without_text(made):
    variables, _, module = made
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if "alone" in str(path) else leaf,
        variables["params"],
    )
    whole, textual = (
        np.asarray(module.apply({"params": p}, IMAGES, TEXT, END))
        for p in (variables["params"], params)
    )
    assert (whole != textual).all()


def test_the_minibatch_is_compared_with_pictures_of_the_same_size(made):
    _, apply, _ = made
    logits = apply(IMAGES, TEXT, END)
    # Sample 0 is in a group with sample 2: of four samples every second.
    pictures = IMAGES[8].at[2].add(5.0)
    other = apply({**IMAGES, 8: pictures}, TEXT, END)
    changed = np.asarray(other != logits)
    np.testing.assert_array_equal(np.argwhere(changed), [[0, 1], [2, 1]])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"resolutions": (8, 16)}, r"pictures of \(8, 16\) pixels; .* takes 4, 8, 16"),
        ({"outputs": (16,)}, r"at \[16\], which no features reach.*set model.d_outputs"),
        ({"attention": (4,)}, r"at \[4\].*some of \(8,\)"),
        ({"attention": (8,), "heads": 3}, "8 channels at 8x8 do not divide into 3 heads; set"),
    ],
)
def test_networks_that_cannot_be(fields, message):
    module = Discriminator(**{"resolutions": (4, 8, 16), **SMALL, **fields})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), IMAGES, TEXT, END)


@pytest.mark.parametrize(
    "images",
    [
        {8: IMAGES[8]},
        {4: IMAGES[4], 16: IMAGES[16]},
        {4: IMAGES[8]},
    ],
)
def test_pictures_that_cannot_be(images, made):
    variables, _, module = made
    with pytest.raises(ValueError, match="squares of 3 channels of each of"):
        jax.eval_shape(module.apply, variables, images, TEXT, END)


def test_a_batch_that_does_not_divide(made):
    variables, _, module = made
    images = {size: images[:3] for size, images in IMAGES.items()}
    with pytest.raises(ValueError, match="3 samples do not divide into groups of 2; set"):
        jax.eval_shape(module.apply, variables, images, TEXT[:3], END[:3])
