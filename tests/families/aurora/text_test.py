"""Which tokens a text head mixes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.aurora.attention import itself
from ganjax.families.aurora.text import AcrossTexts, AcrossTokens, TextHead
from ganjax.layers.initializers import init_on_host

TEXT = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 6)), jnp.float32)
END = jnp.array([1, 4])


def made(attention):
    head = TextHead(8, layers=1, heads=2, attention=attention)
    return head, jax.tree.map(jnp.asarray, init_on_host(head, jax.random.key(0), TEXT, END))


@pytest.fixture(scope="module")
def right():
    return made(AcrossTokens)


@pytest.fixture(scope="module")
def released():
    return made(AcrossTexts)


def test_the_end_is_taken_out_and_the_order_kept(right):
    head, variables = right
    plain = head.clone(layers=0)
    align = {"params": {"align_dim": variables["params"]["align_dim"]}}
    end, others = plain.apply(align, TEXT, END)
    kernel = variables["params"]["align_dim"]["kernel"] * 0.01 / np.sqrt(6)
    whole = TEXT @ kernel + 1.0
    np.testing.assert_allclose(end, [whole[0, 1], whole[1, 4]], atol=1e-5)
    np.testing.assert_allclose(others[0], whole[0, [0, 2, 3, 4]], atol=1e-5)
    np.testing.assert_allclose(others[1], whole[1, :4], atol=1e-5)


def moved(head, variables, sample, token):
    """Which of the others' tokens [n, l - 1] change with one token of one text."""
    other = TEXT.at[sample, token].add(1.0)
    two = [head.apply(variables, text, END)[1] for text in (TEXT, other)]
    return np.any(np.abs(two[0] - two[1]) > 1e-6, axis=-1)


def test_texts_of_a_batch_are_strangers(right):
    found = moved(*right, sample=0, token=2)
    assert found[0].all() and not found[1].any()


def test_the_released_head_mixes_texts_and_not_tokens(released):
    found = moved(*released, sample=0, token=2)
    # Token 2 follows the end of the first text, and is before that of the second.
    np.testing.assert_array_equal(found, [[False, True, False, False], [False, False, True, False]])


def test_both_have_the_same_parameters(right, released):
    assert jax.tree.structure(right[1]) == jax.tree.structure(released[1])


def test_queries_and_keys_learn_only_where_scores_depend_on_them(right, released):
    for (head, variables), learns in ((right, True), (released, False)):
        loss = functools.partial(lambda head, p: head.apply(p, TEXT, END)[1].sum(), head)
        gradient = jax.grad(loss)(variables)["params"]["res_blocks_0"]["attn"]["to_qkv"]["kernel"]
        assert np.any(gradient[:, :16]) == learns and np.any(gradient[:, 16:])


def test_a_text_alone_is_read_as_by_the_released_head(released):
    head, variables = released
    itself_alone = head.clone(attention=functools.partial(AcrossTokens, scores=itself))
    for one in (slice(0, 1), slice(1, 2)):
        wanted = head.apply(variables, TEXT[one], END[one])
        found = itself_alone.apply(variables, TEXT, END)
        for a, b in zip(found, wanted):
            np.testing.assert_allclose(a[one], b, rtol=1e-5, atol=1e-6)
