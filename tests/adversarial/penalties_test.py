"""Orthogonal regularisation: half the gradient of Eq. 3, on the right parameters only."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ganjax.adversarial.penalties import add_orthogonal_gradient, orthogonal_gradient


def off_diagonal_energy(weight):
    w = weight.reshape(-1, weight.shape[-1])
    gram = w.T @ w
    return jnp.sum((gram * (1 - jnp.eye(len(gram)))) ** 2)


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (9, 5), (2, 7)])
def test_direction_is_half_the_gradient(shape):
    weight = jax.random.normal(jax.random.key(0), shape)
    expected = jax.grad(off_diagonal_energy)(weight) / 2
    np.testing.assert_allclose(orthogonal_gradient(weight), expected, rtol=1e-4, atol=1e-4)


def test_orthogonal_weights_are_left_alone():
    weight = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (9, 4)))[0]
    np.testing.assert_allclose(orthogonal_gradient(weight), 0, atol=1e-5)


def test_only_matrices_outside_the_exclusion_are_touched():
    params = {
        "shared": {"embedding": jnp.ones((3, 2))},
        "linear": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
        "embed": {"embedding": jnp.ones((3, 2))},
    }
    rule = add_orthogonal_gradient(0.1, exclude="^shared/", embeddings="embedding$")
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    assert not updates["shared"]["embedding"].any() and not updates["linear"]["bias"].any()
    # kernel: W W^T is 2x2 of threes, so each entry gets 0.1 * 2 * 3; the table's is 3x3 of twos.
    np.testing.assert_allclose(updates["linear"]["kernel"], 0.6, rtol=1e-6)
    np.testing.assert_allclose(updates["embed"]["embedding"], 0.8, rtol=1e-6)


def test_it_needs_the_parameters():
    with pytest.raises(ValueError, match="parameters"):
        optax.chain(add_orthogonal_gradient(0.1)).update(
            {}, (add_orthogonal_gradient(0.1).init({}),)
        )
