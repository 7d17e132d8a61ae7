"""Self-attention over pixels, as of SAGAN (Zhang et al., 2019)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.layers import initializers
from ganjax.layers.convolution import conv2d
from ganjax.layers.resample import max_pool
from ganjax.layers.spectral import SpectralConv

QUERIES = 512  # whose scores the backward pass holds at a time


@jax.custom_vjp
def attend(
    queries: Float[Array, "n p d"], keys: Float[Array, "n q d"], values: Float[Array, "n q e"]
) -> Float[Array, "n p e"]:
    """Softmax of the scores, in float32 or wider, times the values.

    XLA's TPU compiler has a kernel for the whole of this, but none for its gradient, whose scores
    [n, p, q] would travel through memory again and again: the backward pass makes them anew, some
    queries at a time.
    """
    scores = _product("npd,nqd->npq", queries, keys)
    beta = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("npq,nqe->npe", beta, values)


def _product(equation: str, a: Array, b: Array) -> Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(equation, a, b, preferred_element_type=wide)


def _attend_forward(queries, keys, values):
    attended = attend(queries, keys, values)
    return attended, (queries, keys, values, attended)


def _attend_backward(saved, gradient):
    queries, keys, values, attended = saved

    def chunk(queries, attended, gradient):
        beta = jax.nn.softmax(_product("npd,nqd->npq", queries, keys), axis=-1)
        d_beta = _product("npe,nqe->npq", gradient, values)
        # sum_q beta d_beta, from what is at hand.
        mean = jnp.sum(gradient.astype(beta.dtype) * attended, axis=-1, keepdims=True)
        d_scores = (beta * (d_beta - mean)).astype(queries.dtype)
        return (
            jnp.einsum("npq,nqd->npd", d_scores, keys),
            _product("npq,npd->nqd", d_scores, queries),
            _product("npq,npe->nqe", beta.astype(gradient.dtype), gradient),
        )

    bounds = list(range(QUERIES, queries.shape[1], QUERIES))
    pieces = zip(*(jnp.split(x, bounds, axis=1) for x in (queries, attended, gradient)))
    d_queries, d_keys, d_values = zip(*(chunk(*piece) for piece in pieces))
    return (
        jnp.concatenate(d_queries, axis=1),
        sum(d_keys).astype(keys.dtype),
        sum(d_values).astype(values.dtype),
    )


attend.defvjp(_attend_forward, _attend_backward)


class SelfAttention(nn.Module):
    """Each pixel attends to all pixels of a grid half as fine, on top of the identity.

    Queries and keys have c / 8 channels and values c / 2; keys and values are max-pooled. Scores
    are not divided by the root of their dimension, and their softmax is in float32. `gamma` starts
    at zero, the block as the identity.

    Attributes:
        conv: makes the four 1x1 convolutions, without bias.
    """

    conv: Callable[..., nn.Module] = SpectralConv

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, h, w, c = x.shape
        narrow = max(c // 8, 1)
        wide = jnp.promote_types(x.dtype, jnp.float32)

        conv = functools.partial(self.conv, kernel_size=1, use_bias=False)
        # One convolution for all three, of their kernels side by side: alone, each has too few
        # channels to fill a TPU's lanes.
        kernel = functools.partial(conv, operation=lambda x, kernel: kernel, dtype=wide)
        layers = (
            kernel(features=narrow, name="theta"),
            kernel(features=narrow, name="phi"),
            kernel(features=c // 2, name="g"),
        )
        projected = conv2d(x, jnp.concatenate([layer(x) for layer in layers], axis=-1))
        pooled = max_pool(projected).reshape(n, h * w // 4, -1)
        attended = attend(
            projected[..., :narrow].reshape(n, h * w, -1),
            pooled[..., narrow : 2 * narrow],
            pooled[..., 2 * narrow :],
        ).reshape(n, h, w, -1)
        gamma = self.param("gamma", initializers.zeros, ())
        out = conv(features=c, name="o")(attended)
        return (x + gamma * out).astype(x.dtype)
