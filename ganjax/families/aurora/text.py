"""The text head: what is learned on top of the frozen text encoder (Aurora, section 3.1).

In the released code this transformer's attention is at fault twice: the batch is in the place of
the tokens, so that token i of a text sees token i of the others and nothing else of its own; and
logits are multiplied by a flag that is 0. `AcrossTexts` with the scores `uniform` reproduces this
for the released weights, `AcrossTokens` is what the paper means: docs/aurora.md. Parameters are
named as in the released code; see `networks.py`.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.families.aurora.attention import Scores, attend, distances, join, split, uniform
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.initializers import ones, zeros

LayerNorm = functools.partial(
    nn.LayerNorm, epsilon=1e-5, use_fast_variance=False, scale_init=ones, bias_init=zeros
)


class AcrossTokens(nn.Module):
    """Tokens attend to the tokens of their text.

    Attributes:
        heads: divide the channels.
        lr_multiplier: of the dense layers.
        scores: compare queries and keys.
    """

    heads: int
    lr_multiplier: float = 0.01
    scores: Scores = distances

    @nn.compact
    def __call__(self, x: Float[Array, "n l c"]) -> Float[Array, "n l c"]:
        """Add it to x."""
        dense = functools.partial(EqualizedDense, lr_multiplier=self.lr_multiplier)
        parts = jnp.split(dense(3 * x.shape[-1], name="to_qkv")(x), 3, axis=-1)
        q, k, v = (split(part, self.heads) for part in parts)
        return dense(x.shape[-1], name="to_out")(join(attend(q, k, v, self.scores)))


class AcrossTexts(nn.Module):
    """Each token attends to those in its place in the other texts of the batch.

    NOTE: a fault of the released code. A text alone has attention to itself only.

    Attributes:
        as of `AcrossTokens`; by default, too, logits are 0, so that a token gets a mean.
    """

    heads: int
    lr_multiplier: float = 0.01
    scores: Scores = uniform

    @nn.compact
    def __call__(self, x: Float[Array, "n l c"]) -> Float[Array, "n l c"]:
        """Add it to x."""
        attention = AcrossTokens(self.heads, self.lr_multiplier, self.scores)
        nn.share_scope(self, attention)
        return attention(x.swapaxes(0, 1)).swapaxes(0, 1)


class TextBlock(nn.Module):
    """A block of a transformer, the norms in front, with the gelu of CLIP.

    Attributes:
        attention: makes the attention, called with `heads` and `lr_multiplier`.
        gain: of both of the sums of a block.
    """

    heads: int
    lr_multiplier: float = 0.01
    ratio: int = 4
    gain: float = 1.0
    attention: Callable[..., nn.Module] = AcrossTokens

    @nn.compact
    def __call__(self, x: Float[Array, "n l c"]) -> Float[Array, "n l c"]:
        dense = functools.partial(EqualizedDense, lr_multiplier=self.lr_multiplier)
        attention = self.attention(heads=self.heads, lr_multiplier=self.lr_multiplier, name="attn")
        x = (x + attention(LayerNorm(name="ln_1")(x))) * self.gain
        y = dense(self.ratio * x.shape[-1], name="c_fc")(LayerNorm(name="ln_2")(x))
        y = y * jax.nn.sigmoid(1.702 * y)
        return (x + dense(x.shape[-1], name="c_proj")(y)) * self.gain


class TextHead(nn.Module):
    """Features of a text's tokens to one vector for the text, and to those of the other tokens.

    Attributes:
        features: channels of what comes out. Texts of another number are brought to it first.
        layers: blocks.
        heads, lr_multiplier, gain, attention: as of `TextBlock`.
    """

    features: int
    layers: int = 4
    heads: int = 8
    lr_multiplier: float = 0.01
    gain: float = 1.0
    attention: Callable[..., nn.Module] = AcrossTokens

    @nn.compact
    def __call__(
        self, text: Float[Array, "n l i"], end: Int[Array, "n"]
    ) -> tuple[Float[Array, "n features"], Float[Array, "n l-1 features"]]:
        """The token at the text's end, and the others in their order, padding among them.

        Args:
            text: the encoder's features of all tokens, after its last normalisation.
            end: place of the token that ends each text.
        """
        if text.shape[-1] != self.features:
            text = EqualizedDense(
                self.features,
                lr_multiplier=self.lr_multiplier,
                initial_bias=1.0,
                name="align_dim",
            )(text)
        for number in range(self.layers):
            block = TextBlock(
                self.heads,
                self.lr_multiplier,
                gain=self.gain,
                attention=self.attention,
                name=f"res_blocks_{number}",
            )
            text = block(text)
        others = jnp.arange(text.shape[1] - 1) + (
            jnp.arange(text.shape[1] - 1) >= end[:, None]
        )  # [n, l - 1]
        last = jnp.take_along_axis(text, end[:, None, None], axis=1)[:, 0]
        return last, jnp.take_along_axis(text, others[:, :, None], axis=1)
