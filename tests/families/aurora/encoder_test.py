"""CLIP as the players ask it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.aurora.encoder import Encoder
from ganjax.pretrained.clip import Clip, ImageTower, TextTower

MODULE = Clip(
    image=ImageTower(width=8, layers=1, heads=2, embedding=4, patch=8, size=16),
    text=TextTower(width=8, layers=1, heads=2, embedding=4, vocabulary=9, context=5),
)
TOKENS = jnp.array([[7, 1, 8, 0, 0], [7, 2, 3, 8, 0]])


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODULE.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), TOKENS)


def test_texts_that_were_read_before_are_the_same(variables):
    encoder = Encoder(MODULE)
    now = encoder.read(variables, {"tokens": TOKENS})
    assert now.states.shape == (2, 5, 8) and now.end.tolist() == [2, 3]
    before = {"tokens": TOKENS, "text_states": now.states.astype(jnp.float16)}
    read = encoder.read(variables, before)
    for one, other in zip(read, now):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-3)
    # Nothing of the tower is asked again.
    read = encoder.read(variables, before | {"text_states": jnp.zeros((2, 5, 8))})
    assert not read.embedding.any()


def test_pictures_of_each_resolution_have_a_loss_with_a_gradient(variables):
    encoder = Encoder(MODULE)
    texts = encoder.read(variables, {"tokens": TOKENS})
    rng = np.random.default_rng(0)
    images = {s: jnp.asarray(rng.uniform(-1, 1, (2, s, s, 3)), jnp.float32) for s in (4, 16)}

    def total(images):
        found = encoder.likeness(variables, images, texts)
        return sum(found.values()), found

    gradients, found = jax.grad(total, has_aux=True)(images)
    assert found.keys() == images.keys() and found[4] != found[16]
    for gradient in gradients.values():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
