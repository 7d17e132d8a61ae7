"""CLIP: sizes, preparation and use. Numbers: `tests/goldens_test.py`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.parallel import mesh
from ganjax.pretrained import clip
from ganjax.pretrained.blocks import shapes_of

TINY = clip.Clip(
    image=clip.ImageTower(width=16, layers=1, heads=2, embedding=8, patch=4, size=8),
    text=clip.TextTower(width=12, layers=2, heads=3, embedding=8, vocabulary=20, context=7),
)


@pytest.fixture(scope="module")
def network():
    kind = clip.kind(TINY)
    shapes = shapes_of(kind.module, *kind.examples)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape), shapes)
    return clip.ClipNetwork("tiny", kind, jax.tree.map(jnp.float32, variables))


@pytest.mark.parametrize(
    ("kind", "parameters", "entries"),
    [(clip.VIT_B_32, 151_277_313, 302), (clip.VIT_L_14, 427_616_513, 446)],
)
def test_published_sizes(kind, parameters, entries):
    shapes = shapes_of(kind.module, *kind.examples)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters
    openai = {name for entry in clip.entries(shapes, {}) for name in entry.names}
    assert "visual.transformer.resblocks.11.attn.in_proj_weight" in openai
    assert len(openai) == entries
    other = clip.entries(shapes, {"text_model.x": np.zeros(1)})
    names = {name for entry in other for name in entry.names}
    assert "vision_model.encoder.layers.11.self_attn.v_proj.bias" in names


def test_normalisation_and_squeezing():
    images = np.zeros((1, 8, 6, 3), np.uint8) + np.array([10, 128, 255], np.uint8)
    found = clip.Squeeze(4)(jnp.asarray(images))
    expected = (np.array([10, 128, 255]) / 255 - clip.MEAN) / clip.STD
    assert found.shape == (1, 4, 4, 3)
    np.testing.assert_allclose(found[0, 2, 1], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 61, 3), (61, 40, 3), (20, 20, 3), (10, 33, 3)])
def test_the_middle_is_cut_out_on_the_host(shape):
    image = np.zeros(shape, np.uint8)
    middle = (shape[0] // 2, shape[1] // 2)
    image[middle[0] - 2 : middle[0] + 2, middle[1] - 2 : middle[1] + 2] = 255
    (found,) = clip.crop_on_host([image], 20)
    assert found.shape == (20, 20, 3) and found.dtype == np.uint8
    rows, columns = np.nonzero(found[..., 0] > 127)
    assert abs(rows.mean() - 9.5) < 1.5 and abs(columns.mean() - 9.5) < 1.5


def test_texts_need_a_tokenizer_tokens_do_not(network):
    with pytest.raises(ValueError, match="without a tokenizer"):
        network.text(["a cat"])
    tokens = np.array([[17, 3, 4, 19, 0, 0, 0], [17, 19, 0, 0, 0, 0, 0]], np.int32)
    found = network.text(tokens)
    assert found["text_hidden"].shape == (2, 7, 12)
    np.testing.assert_array_equal(found["text_end"][0], found["text_hidden"][0, 3])
    # What follows the end is never looked at.
    tokens[0, 5:] = 9
    np.testing.assert_array_equal(network.text(tokens)["text_end"], found["text_end"])
    tokens[0, 1] = 9
    assert np.abs(network.text(tokens)["text_end"][0] - found["text_end"][0]).max() > 1e-3


def test_images_of_any_size_and_only_the_wanted_features(network):
    images = np.random.default_rng(0).integers(0, 256, (3, 10, 14, 3), np.uint8)
    found = network(images, ["embedding"])
    assert list(found) == ["embedding"] and found["embedding"].shape == (3, 8)
    inside = network.apply(network.variables, jnp.asarray(images, jnp.float32))
    np.testing.assert_allclose(inside["embedding"], found["embedding"], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="images of 8x8, got 4x8"):
        TINY.apply(network.variables, jnp.zeros((1, 4, 8, 3)))


def test_split_images_give_the_same_features(network):
    images = np.random.default_rng(0).integers(0, 256, (8, 10, 14, 3), np.uint8)
    devices = mesh.make_mesh({"data": 8})
    split = mesh.batch_sharding(devices, leading=0)
    expected = network(images)["embedding"]
    for one in (network, network.placed(mesh.replicated(devices))):
        found = one(jax.device_put(images, split))["embedding"]
        assert found.sharding.is_equivalent_to(split, 2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_training_may_compute_in_bfloat16(network):
    fast = clip.computing_in(TINY, jnp.bfloat16)
    images, tokens = jnp.ones((2, 8, 8, 3)), jnp.array([[17, 3, 19, 0]])
    found = jax.jit(fast.apply)(network.variables, images, tokens)
    exact = jax.jit(TINY.apply)(network.variables, images, tokens)
    for name in ("embedding", "text_hidden"):
        assert found[name].dtype == jnp.bfloat16
        scale = np.abs(exact[name]).max()
        np.testing.assert_allclose(found[name].astype(np.float32), exact[name], atol=0.05 * scale)


def test_captioned_pictures_give_both_embeddings(network):
    rng = np.random.default_rng(5)
    images = jnp.asarray(rng.integers(256, size=(3, 8, 8, 3), dtype=np.uint8))
    tokens = jnp.asarray(rng.integers(20, size=(3, 7)), jnp.int32)
    samples = {"image": images, "tokens": tokens}
    found = network.apply(network.variables, samples, ["embeddings"])["embeddings"]
    prepared = clip.normalise(images)
    expected = network.kind.module.apply(network.variables, prepared)["embedding"]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)
    expected = network.text(tokens)["text_embedding"]
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-4, atol=1e-5)
