"""Penalties on gradients and weights."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ganjax.adversarial.state import path_of


def orthogonal_gradient(weight: Float[Array, "*shape out"]) -> Float[Array, "*shape out"]:
    """Direction of BigGAN's relaxed orthogonal regularisation (Eq. 3) for one weight.

    With ``W`` the weight as ``[out, rest]``, returns ``2 (W W^T * (1 - I)) W`` in the weight's
    own layout (output channels last).

    NOTE: the gradient of Eq. 3 itself would be twice this; the official code steps along this.
    """
    # Whatever the order of its columns, W W^T and the product with W agree with the official
    # [out, in, kh, kw] layout, so no transposition is needed.
    w = weight.reshape(-1, weight.shape[-1])  # [rest, out]
    rest, out = w.shape
    if rest < out:
        # W (W^T W - diagonal) by way of W W^T, which is small: a first layer of 20 x 24576 would
        # otherwise make a matrix of 24576 x 24576.
        gram = jnp.matmul(w, w.T, precision="highest")
        product = jnp.matmul(gram, w, precision="highest") - w * jnp.sum(w * w, axis=0)
    else:
        # NOTE: default precision, bfloat16 products on a TPU: every chip does all of this, and a
        # penalty scaled by 1e-4 is served as well by an entry that is off by 1/256 of itself.
        off_diagonal = jnp.matmul(w.T, w) * (1 - jnp.eye(out, dtype=w.dtype))
        product = jnp.matmul(w, off_diagonal)
    return (2 * product).reshape(weight.shape)


class OrthogonalState(NamedTuple):
    """The transformation has no state."""


def add_orthogonal_gradient(
    strength: float, exclude: str = r"(?!)", embeddings: str = r"(?!)"
) -> optax.GradientTransformation:
    """Add BigGAN's orthogonal regularisation to the gradient, once per optimizer step.

    It belongs in front of Adam in an ``optax.chain``: like weight decay it depends on the raw
    weights alone, so it is added after microbatches have been accumulated.

    Args:
      strength: the paper's beta, 1e-4.
      exclude: regular expression of parameter paths to leave alone (the shared embedding).
      embeddings: regular expression of paths of embedding tables, whose rows are the "outputs".

    Only parameters with two or more dimensions are touched.
    """

    def init(params: Any) -> OrthogonalState:
        del params
        return OrthogonalState()

    def update(updates: Any, state: OrthogonalState, params: Any = None):
        if params is None:
            raise ValueError("add_orthogonal_gradient needs the parameters: update(..., params).")

        def add(path, gradient, weight):
            name = path_of(path)
            if weight.ndim < 2 or re.search(exclude, name):
                return gradient
            if re.search(embeddings, name):
                return gradient + strength * orthogonal_gradient(weight.T).T
            return gradient + strength * orthogonal_gradient(weight)

        return jax.tree_util.tree_map_with_path(add, updates, params), state

    return optax.GradientTransformation(init, update)
