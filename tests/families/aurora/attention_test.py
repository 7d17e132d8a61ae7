"""How queries and keys are compared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.aurora import attention
from ganjax.families.aurora.attention import SelfAttention, Tied, distances, tied_distances

Q, K = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3, 5, 4)), jnp.float32)


def test_scores():
    distance = np.linalg.norm(Q[..., :, None, :] - K[..., None, :, :], axis=-1)
    np.testing.assert_allclose(distances(Q, K), -distance / 2, rtol=1e-5)
    product = np.einsum("abtd,absd->abts", Q, K)
    np.testing.assert_allclose(attention.products(Q, K), product / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(attention.means(Q, K), product / 4, rtol=1e-4, atol=1e-6)
    assert attention.uniform(Q, K).shape == product.shape and not attention.uniform(Q, K).any()


def test_a_tied_key_is_no_distance_away_however_far_out():
    q = Q + 1000.0
    assert not np.any(np.diagonal(tied_distances(q, q), axis1=-2, axis2=-1))


@pytest.mark.parametrize("scores", [distances, tied_distances])
def test_the_gradient_where_queries_are_keys_is_none(scores):
    gradient = jax.grad(lambda q: scores(q, q).sum())(jnp.ones((1, 3, 4)))
    np.testing.assert_array_equal(gradient, np.zeros((1, 3, 4)))


def test_without_self_no_token_has_a_part_of_itself():
    scores = attention.WithoutSelf(tied_distances)
    values = jnp.eye(5)
    weights = attention.attend(Q[0, 0], Q[0, 0], values, scores)
    np.testing.assert_array_equal(np.diagonal(weights), np.zeros(5))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


def test_tied_attention_has_fewer_parameters():
    x, w = jnp.ones((1, 2, 2, 8)), jnp.ones((1, 3))
    shapes = {}
    for projection, scores in ((Tied, tied_distances), (attention.Untied, distances)):
        layer = SelfAttention(2, projection, scores)
        variables = jax.eval_shape(functools.partial(layer.init, jax.random.key(0)), x, w)
        shapes[projection] = variables["params"]["to_qk"]["kernel"].shape
    assert shapes == {Tied: (8, 8), attention.Untied: (8, 16)}


def test_heads_that_take_turns_give_the_same(monkeypatch):
    def found():
        y, back = jax.vjp(lambda q, v: attention.attend(q, q, v, tied_distances), Q, K)
        return y, back(jnp.sin(K))

    whole = found()
    monkeypatch.setattr(attention, "MANY", 25)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found(), whole)
    assert "scan" in str(jax.make_jaxpr(lambda q: attention.attend(q, q, q, distances))(Q))
