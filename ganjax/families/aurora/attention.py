"""Attention of Aurora's generator: what is compared with what, and how (section 3.2).

Queries and keys are compared by `Scores`; distances are bounded where products are not (Kim et al.,
"The Lipschitz constant of self-attention"), which GigaGAN found necessary at scale. Parameters are
named as in the released code; see `networks.py`.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.families.aurora.blocks import StyledConv
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.modulated import ModulatedConv

# Logits of the attention of t queries to s keys, float32 or wider.
Scores = Callable[[Float[Array, "*b t d"], Float[Array, "*b s d"]], Float[Array, "*b t s"]]
MANY = 2**20  # scores of a head


def products(q: Float[Array, "*b t d"], k: Float[Array, "*b s d"]) -> Float[Array, "*b t s"]:
    """`q k / sqrt(d)` (Vaswani et al., 2017, Eq. 1)."""
    return _products(q, k) / math.sqrt(q.shape[-1])


def means(q: Float[Array, "*b t d"], k: Float[Array, "*b s d"]) -> Float[Array, "*b t s"]:
    """`q k / d`: queries and keys are scaled both (`scale_in` of the released code)."""
    return _products(q, k) / q.shape[-1]


def distances(q: Float[Array, "*b t d"], k: Float[Array, "*b s d"]) -> Float[Array, "*b t s"]:
    """`-||q - k|| / sqrt(d)`, not squared; where q is k, its gradient is 0."""
    return -_root(_squared_distances(q, k)) / math.sqrt(q.shape[-1])


def tied_distances(q: Float[Array, "*b t d"], k: Float[Array, "*b t d"]) -> Float[Array, "*b t t"]:
    """`distances` for keys that are the queries: each one's to itself is 0, without rounding."""
    squares = jnp.where(jnp.eye(q.shape[-2], dtype=bool), 0.0, _squared_distances(q, k))
    return -_root(squares) / math.sqrt(q.shape[-1])


def uniform(q: Float[Array, "*b t d"], k: Float[Array, "*b s d"]) -> Float[Array, "*b t s"]:
    """0: all keys count alike, and what makes queries and keys learns nothing."""
    return jnp.zeros((*q.shape[:-1], k.shape[-2]), jnp.promote_types(q.dtype, jnp.float32))


def itself(q: Float[Array, "*b t d"], k: Float[Array, "*b t d"]) -> Float[Array, "*b t t"]:
    """A token counts for itself alone: what the released text head does to a text on its own."""
    return jnp.where(jnp.eye(q.shape[-2], dtype=bool), uniform(q, k), -jnp.inf)


@dataclasses.dataclass(frozen=True)
class WithoutSelf:
    """Other scores, of which none is of a token with itself (`mask_self` of the released code)."""

    scores: Scores = distances

    def __call__(
        self, q: Float[Array, "*b t d"], k: Float[Array, "*b t d"]
    ) -> Float[Array, "*b t t"]:
        return jnp.where(jnp.eye(q.shape[-2], dtype=bool), -jnp.inf, self.scores(q, k))


def _products(q: Array, k: Array) -> Array:
    wide = jnp.promote_types(q.dtype, jnp.float32)
    return jnp.einsum("...td,...sd->...ts", q, k, preferred_element_type=wide)


def _squared_distances(q: Array, k: Array) -> Array:
    wide = jnp.promote_types(q.dtype, jnp.float32)
    # The terms cancel, so that their rounding would be large beside what is left. Products of
    # bfloat16 have none in float32.
    product = jnp.einsum(
        "...td,...sd->...ts", q, k, precision="highest", preferred_element_type=wide
    )
    squares = [jnp.sum(jnp.square(x.astype(wide)), axis=-1) for x in (q, k)]
    return squares[0][..., :, None] + squares[1][..., None, :] - 2 * product


def _root(x: Array) -> Array:
    """The square root, which is 0 and has no slope where x is not positive."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def attend(
    q: Float[Array, "*b t d"], k: Float[Array, "*b s d"], v: Float[Array, "*b s e"], scores: Scores
) -> Float[Array, "*b t e"]:
    """Means of the values, by a softmax of the scores.

    Where there are `MANY` of these, heads (dimension -3) take turns, and their weights are computed
    again for the gradient: at 64x64 those of one picture would fill 0.5 GiB.
    """

    def means(q: Array, k: Array, v: Array) -> Array:
        weights = jax.nn.softmax(scores(q, k), axis=-1).astype(v.dtype)
        return jnp.einsum("...ts,...se->...te", weights, v)

    if q.ndim < 4 or q.shape[-2] * k.shape[-2] < MANY:
        return means(q, k, v)
    heads = tuple(jnp.moveaxis(part, -3, 0) for part in (q, k, v))
    return jnp.moveaxis(jax.lax.map(lambda one: jax.checkpoint(means)(*one), heads), 0, -3)


def split(x: Float[Array, "n t c"], heads: int) -> Float[Array, "n heads t d"]:
    """Channels by head."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join(x: Float[Array, "n heads t d"]) -> Float[Array, "n t c"]:
    """The inverse of `split`."""
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], -1)


Heads = Float[Array, "n heads t d"]


def project(x: Float[Array, "n t i"], features: int, name: str) -> Float[Array, "n t o"]:
    """A dense layer without bias, of the module that calls; computed in the dtype of `x`."""
    return EqualizedDense(features, use_bias=False, dtype=x.dtype, name=name)(x)


class Untied(nn.Module):
    """Queries, keys and values, each by a map of their own."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t c"]) -> tuple[Heads, Heads, Heads]:
        qk = split(project(x, 2 * x.shape[-1], "to_qk"), self.heads)
        q, k = jnp.split(qk, 2, axis=-1)
        return q, k, split(project(x, x.shape[-1], "to_v"), self.heads)


class Tied(nn.Module):
    """Keys are the queries; to be compared by `tied_distances`."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t c"]) -> tuple[Heads, Heads, Heads]:
        q = split(project(x, x.shape[-1], "to_qk"), self.heads)
        return q, q, split(project(x, x.shape[-1], "to_v"), self.heads)


class Joint(nn.Module):
    """As `Untied`, of one map: what the released code has for `products`."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t c"]) -> tuple[Heads, Heads, Heads]:
        qkv = split(project(x, 3 * x.shape[-1], "to_qkv"), self.heads)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        return q, k, v


class SelfAttention(nn.Module):
    """Pixels attend to pixels; what comes out passes a modulated 1x1 convolution (Eq. 5).

    Attributes:
        heads: divide the channels.
        projection: makes the queries, keys and values, called with `heads`.
        scores: compare queries and keys.
        conv: makes the modulated convolution.
    """

    heads: int
    projection: Callable[..., nn.Module] = Untied
    scores: Scores = distances
    conv: Callable[..., nn.Module] = ModulatedConv

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], w: Float[Array, "n d"]
    ) -> Float[Array, "n h w c"]:
        """Add it to x."""
        projection = self.projection(self.heads)
        nn.share_scope(self, projection)
        q, k, v = projection(x.reshape(len(x), -1, x.shape[-1]))
        y = join(attend(q, k, v, self.scores)).reshape(x.shape)
        out = StyledConv(
            x.shape[-1], self.conv, kernel_size=1, activation="linear", name="proj_out"
        )
        return out(y, w)


class CrossAttention(nn.Module):
    """Pixels attend to the tokens of a text (Eq. 6).

    Attributes:
        heads, scores: as of `SelfAttention`.
        head_dim: channels of a head.
    """

    heads: int
    head_dim: int
    scores: Scores = distances

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t c"], context: Float[Array, "n l d"]
    ) -> Float[Array, "n t c"]:
        """Add it to x."""
        inner = self.heads * self.head_dim
        q = project(x, inner, "to_q")
        k, v = jnp.split(project(context, 2 * inner, "to_kv"), 2, axis=-1)
        q, k, v = (split(part, self.heads) for part in (q, k, v))
        y = join(attend(q, k, v, self.scores))
        return EqualizedDense(x.shape[-1], dtype=x.dtype, name="proj_out")(y)
