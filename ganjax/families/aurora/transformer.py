"""The attention block of Aurora's generator, with its mixture of experts (Eqs. 4 to 9).

Parameters are named as in the released code; see `networks.py`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.families.aurora.attention import CrossAttention, SelfAttention
from ganjax.families.aurora.blocks import StyledConv
from ganjax.families.aurora.text import LayerNorm
from ganjax.layers.equalized import EqualizedConv, EqualizedDense
from ganjax.layers.initializers import ones, zeros
from ganjax.layers.modulated import ModulatedConv
from ganjax.layers.moe import MixtureOfExperts


class StyleRouter(nn.Module):
    """Logits of experts from a token and w: a modulated 1x1 convolution with its activation.

    NOTE: the released code has a leaky ReLU on the logits, too.

    Attributes:
        features: experts.
        conv: makes the convolution, as of `StyledConv`.
    """

    features: int
    conv: Callable[..., nn.Module] = ModulatedConv

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], w: Float[Array, "n dw"]) -> Float[Array, "n t e"]:
        layer = StyledConv(self.features, self.conv, kernel_size=1, demodulate=True)
        nn.share_scope(self, layer)
        return layer(x[:, :, None], w)[:, :, 0]


class StyleToken(nn.Module):
    """The context with a token more, made of w (`use_w_cond` of the released code)."""

    @nn.compact
    def __call__(
        self, context: Float[Array, "n l d"], w: Float[Array, "n dw"]
    ) -> Float[Array, "n l+1 d"]:
        dense = EqualizedDense(context.shape[-1], initial_bias=1.0)
        nn.share_scope(self, dense)
        return jnp.concatenate([context, dense(w)[:, None].astype(context.dtype)], axis=1)


def text_alone(name: str) -> Callable[[Array, Array], Array]:
    """The context as it is: in the place of `StyleToken`."""
    del name
    return lambda context, w: context


class AttentionBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each after a norm (Eqs. 5 to 7).

    Attributes:
        heads, head_dim: of the attention; heads of that many channels make up the features.
        self_attention, cross_attention: make these, called with `heads`, and with `head_dim`, too.
            Where there are no tokens to see, there is no cross-attention.
        context: makes the map from text and w to what the cross-attention sees.
        feed_forward: makes the network, which sees tokens and w; None: none.
    """

    heads: int
    head_dim: int
    self_attention: Callable[..., nn.Module] = SelfAttention
    cross_attention: Callable[..., nn.Module] = CrossAttention
    context: Callable[..., Callable[[Array, Array], Array]] = text_alone
    feed_forward: Callable[..., nn.Module] | None = functools.partial(
        MixtureOfExperts, 4, StyleRouter
    )

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], w: Float[Array, "n d"], text: Float[Array, "n l dt"]
    ) -> Float[Array, "n h w c"]:
        def norm(y: Array, name: str) -> Array:
            return LayerNorm(name=name)(y).astype(y.dtype)

        attention = self.self_attention(heads=self.heads, name="self_attn")
        x = x + attention(norm(x, "norm1"), w)
        y = x.reshape(len(x), -1, x.shape[-1])
        seen = self.context(name="align_dim")(text, w).astype(y.dtype)
        if seen.shape[1]:
            cross = self.cross_attention(
                heads=self.heads, head_dim=self.head_dim, name="cross_attn"
            )
            y = y + cross(norm(y, "norm2"), seen)
        if self.feed_forward is not None:
            y = y + self.feed_forward(name="ff")(norm(y, "norm3"), w)
        return y.reshape(x.shape)


class ResidualAttentionBlock(nn.Module):
    """Attention blocks between two 1x1 convolutions, beside the identity; theirs starts from zero.

    NOTE: these convolutions are not modulated, where the paper's Eqs. 4 and 8 say so.

    Attributes:
        depth: attention blocks.
        heads, head_dim: as of `AttentionBlock`; a `head_dim` of None divides the input's channels.
        gain: of the sum.
        groups: of the group norm; they divide the channels.
        clamp: limit of what the 1x1 convolutions return.
        initial_scale: of the last convolution's weights.
        dtype: of the computation between the norm and the sum, but for scores and the router's
            logits; None: as input and kernels promote.
        block: makes an attention block, called with `heads` and `head_dim`.
    """

    depth: int = 2
    heads: int = 8
    head_dim: int | None = 64
    gain: float = 0.3
    groups: int = 32
    clamp: float | None = None
    initial_scale: float = 0.0
    dtype: Any = None
    block: Callable[..., nn.Module] = AttentionBlock

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], w: Float[Array, "n d"], text: Float[Array, "n l dt"]
    ) -> Float[Array, "n h w c"]:
        channels = x.shape[-1]
        if channels % self.groups or (self.head_dim is None and channels % self.heads):
            raise ValueError(
                f"{channels} channels do not divide into {self.groups} groups, or {self.heads}"
                " heads; set the channels at resolutions with attention to a multiple of both"
            )
        head_dim = channels // self.heads if self.head_dim is None else self.head_dim
        conv = functools.partial(
            EqualizedConv, kernel_size=1, use_bias=False, clamp=self.clamp, dtype=self.dtype
        )
        norm = nn.GroupNorm(
            self.groups,
            epsilon=1e-5,
            use_fast_variance=False,
            scale_init=ones,
            bias_init=zeros,
            name="norm",
        )
        y = conv(self.heads * head_dim, name="proj_in")(norm(x))
        for number in range(self.depth):
            block = self.block(heads=self.heads, head_dim=head_dim, name=f"attn_blocks_{number}")
            y = block(y, w, text)
        out = conv(channels, initial_scale=self.initial_scale, name="proj_out")
        return (x + out(y)) * self.gain
