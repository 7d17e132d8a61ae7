"""Losses against what they are said to be, in numbers made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.aurora.losses import (
    alike,
    as_clip_sees,
    contrastive,
    others,
    pyramid,
    rejected,
)

TOKENS = jnp.array([[1, 2], [1, 2], [1, 3], [1, 2]])


def test_a_pyramid_is_of_means():
    images = jnp.arange(64.0).reshape(1, 8, 8, 1)
    found = pyramid(images, (2, 8))
    assert {size: image.shape for size, image in found.items()} == {
        2: (1, 2, 2, 1),
        8: (1, 8, 8, 1),
    }
    assert found[2][0, 0, 1, 0] == images[0, :4, 4:].mean()
    with pytest.raises(ValueError, match=r"do not halve to \(3,\)"):
        pyramid(images, (3,))


def test_a_wrong_text_is_another_text():
    index, counted = others(TOKENS)
    np.testing.assert_array_equal(index, [2, 2, 3, 2])
    assert counted.all() and not (TOKENS[index] == TOKENS).all(axis=1).any()
    _, counted = others(jnp.ones((3, 2), jnp.int32))
    assert not counted.any()


def test_samples_without_a_wrong_text_weigh_nothing():
    logits = jnp.array([[0.5, -1.0], [3.0, 2.0], [0.0, 0.0]])
    wanted = np.log1p(np.exp(np.asarray(logits)[[0, 2]])).mean()
    np.testing.assert_allclose(rejected(logits, jnp.array([True, False, True])), wanted, rtol=1e-6)
    assert rejected(logits, jnp.zeros(3, bool)) == 0


def test_contrast_is_clips_where_texts_differ():
    rng = np.random.default_rng(0)
    images, texts = (jnp.asarray(rng.standard_normal((3, 4)), jnp.float32) for _ in range(2))

    def unit(x):
        x = np.asarray(x)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    logits = 10 * unit(images) @ unit(texts).T
    rows, columns = (
        -np.mean(np.diag(np.log(np.exp(part) / np.exp(part).sum(1, keepdims=True))))
        for part in (logits, logits.T)
    )
    found = contrastive(images, texts, jnp.float32(10), jnp.eye(3, dtype=bool))
    np.testing.assert_allclose(found, (rows + columns) / 2, rtol=1e-5)


def test_the_same_text_elsewhere_is_not_told_apart():
    same = alike(TOKENS)
    images = jnp.eye(4)
    texts = jnp.array([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
    # Were samples 0 and 1 told apart, no pictures could be right for both of their texts.
    best = contrastive(images[jnp.array([0, 0, 2, 0])], texts, jnp.float32(100), same)
    assert best < 1e-6
    gradient = jax.grad(contrastive)(images, texts, jnp.float32(1), same)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_clip_sees_any_size_and_grey():
    images = jnp.full((1, 4, 4, 1), 1.0)
    seen = as_clip_sees(images, 6)
    assert seen.shape == (1, 6, 6, 3)
    white = (1 - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array(
        [0.26862954, 0.26130258, 0.27577711]
    )
    np.testing.assert_allclose(seen[0, 2, 3], white, rtol=1e-5)
