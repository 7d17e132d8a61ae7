"""Aurora's discriminator, in the manner of GigaGAN (Kang et al., 2023, section 3.3).

Aurora takes it from there and releases none. Pictures of all resolutions enter, each where features
have its size; from there on it shares the blocks of the larger ones. Predictions are made on the
way down, too, and most of each depends on the text. `docs/aurora.md` says what is chosen and why.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.families.aurora.attention import attend, join, project, split, tied_distances
from ganjax.families.aurora.blocks import StyledConv
from ganjax.families.aurora.text import LayerNorm, TextHead
from ganjax.families.stylegan2.blocks import DiscriminatorBlock, DiscriminatorEpilogue
from ganjax.families.stylegan2.networks import channels_at, normalize_2nd_moment
from ganjax.layers.equalized import EqualizedConv, EqualizedDense
from ganjax.layers.modulated import ModulatedConv

FIRST = 4  # pixels: where all pictures end


class Looks(NamedTuple):
    """What the discriminator has seen of pictures, before it knows their texts.

    Attributes:
      maps: features by resolution, of each picture that was larger: [n, scales, h, w, c].
      whole: of each picture: [n, scales, c].
    """

    maps: dict[int, Array]
    whole: Array


class Attention(nn.Module):
    """Pixels attend to pixels, keys being queries, compared by their distance; to be added.

    Attributes:
        heads: divide the channels.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        y = LayerNorm(name="norm")(x).astype(x.dtype).reshape(len(x), -1, x.shape[-1])
        q = split(project(y, x.shape[-1], "to_qk"), self.heads)
        v = split(project(y, x.shape[-1], "to_v"), self.heads)
        y = join(attend(q, q, v, tied_distances))
        return EqualizedDense(x.shape[-1], dtype=x.dtype, name="to_out")(y).reshape(x.shape)


class Predictor(nn.Module):
    """How real each place is: for itself, and as a picture of its text.

    Attributes:
        layers: modulated 1x1 convolutions that the text scales, before the one to a number.
        conv: makes them.
    """

    layers: int = 4
    conv: Callable[..., nn.Module] = ModulatedConv

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], text: Float[Array, "n d"]
    ) -> Float[Array, "n h w"]:
        layer = functools.partial(StyledConv, conv=self.conv, kernel_size=1)
        y = x
        for number in range(self.layers):
            y = layer(x.shape[-1], name=f"conv{number}")(y, text)
        y = layer(1, demodulate=False, activation="linear", name="out")(y, text)
        return (y + EqualizedConv(1, kernel_size=1, use_bias=False, name="alone")(x))[..., 0]


class Discriminator(nn.Module):
    """Logits of pictures of several resolutions, given their text.

    Attributes:
        resolutions: of the pictures, from the lowest, each twice the one before. Fewer may be
            given; blocks above the largest do nothing.
        image_channels: of the pictures.
        text_dim: channels of the text encoder's tokens.
        channel_base, channel_max: channels at a resolution: the one divided by it, at most the
            other.
        outputs: resolutions at which there are predictions, beside the last one.
        predictor: makes those.
        text_head: makes the text head, called with `features`, which are `text_features`.
        attention: resolutions with self-attention, of `heads` heads.
        group_size: of the standard deviation over the minibatch; None: all of it.
        clamp: limit of what convolutions return; None: none.
        taps: of the resampling filters.
        dtype: of the computation above 4x4; logits are float32.
    """

    resolutions: tuple[int, ...]
    image_channels: int = 3
    text_dim: int = 768
    channel_base: int = 16384
    channel_max: int = 1024
    outputs: tuple[int, ...] = (8, 16, 32)
    predictor: Callable[..., nn.Module] = Predictor
    text_head: Callable[..., nn.Module] = TextHead
    text_features: int = 1024
    attention: tuple[int, ...] = ()
    heads: int = 8
    group_size: int | None = 4
    clamp: float | None = None
    taps: Any = (1, 3, 3, 1)
    dtype: Any = None

    def setup(self) -> None:
        wanted = tuple(FIRST * 2**level for level in range(len(self.resolutions)))
        if self.resolutions != wanted or not wanted:
            raise ValueError(
                f"pictures of {self.resolutions} pixels; the discriminator takes {FIRST},"
                f" {2 * FIRST}, {4 * FIRST} and so on, up to the largest"
            )
        strange = sorted({*self.outputs, *self.attention} - set(self.resolutions[1:-1]))
        if strange:
            raise ValueError(
                f"predictions or attention at {strange}, which no features reach from above; set"
                f" model.d_outputs and model.d_attention to some of {self.resolutions[1:-1]}"
            )
        odd = [size for size in self.attention if self._channels(size) % self.heads]
        if odd:
            raise ValueError(
                f"{self._channels(odd[0])} channels at {odd[0]}x{odd[0]} do not divide into"
                f" {self.heads} heads; set model.d_attention to other resolutions, or model.heads"
                " and model.d_channel_base so that they do"
            )
        self.head = self.text_head(features=self.text_features, name="text_head")
        layer = functools.partial(EqualizedConv, activation="lrelu", dtype=self.dtype)
        self.from_rgb = {
            size: layer(self._channels(size), kernel_size=1, name=f"rgb{size}")
            for size in self.resolutions
        }
        self.blocks = {
            size: DiscriminatorBlock(
                self._channels(size // 2),
                self._channels(size),
                from_rgb=False,
                residual=True,
                skip=False,
                conv=layer,
                clamp=self.clamp,
                taps=self.taps,
                name=f"b{size}",
            )
            for size in self.resolutions[1:]
        }
        self.attend = {
            size: Attention(self.heads, name=f"attention{size}") for size in self.attention
        }
        self.predictors = {size: self.predictor(name=f"out{size}") for size in self.outputs}
        width = self._channels(FIRST)
        self.epilogue = DiscriminatorEpilogue(
            width, width, False, group_size=self.group_size, clamp=self.clamp, name="b4"
        )
        self.alone = EqualizedDense(1, name="alone")
        self.projection = EqualizedDense(width, name="projection")

    def _channels(self, size: int) -> int:
        return channels_at(size, self.channel_base, self.channel_max)

    def __call__(
        self,
        images: Mapping[int, Float[Array, "n _ _ c"]],
        text: Float[Array, "n l text_dim"],
        end: Int[Array, "n"],
    ) -> Float[Array, "n predictions"]:
        """Logits, the higher, the more real: of each prediction of each of the pictures.

        Args:
            images: in [-1, 1], by resolution.
            text, end: as of `TextHead`.
        """
        return self.judge(self.look(images), self.describe(text, end))

    def describe(
        self, text: Float[Array, "n l text_dim"], end: Int[Array, "n"]
    ) -> Float[Array, "n text_features"]:
        """What predictions know of the texts: their last token's features, of length 1 a root."""
        whole, _ = self.head(text, end)
        return normalize_2nd_moment(whole)

    def look(self, images: Mapping[int, Float[Array, "n _ _ c"]]) -> Looks:
        """What is seen of the pictures, whatever their texts are.

        Raises:
            ValueError: no picture of 4x4, a resolution that is not the discriminator's or is left
                out between others, pictures of another size than they are said to be, or a number
                of samples that does not divide into groups.
        """
        largest = max(images, default=0)
        taken = tuple(size for size in self.resolutions if size <= largest)
        shapes = {size: images[size].shape[1:] for size in sorted(images)}
        if shapes != {size: (size, size, self.image_channels) for size in taken}:
            raise ValueError(
                f"pictures are {shapes} by resolution; the discriminator wants squares of"
                f" {self.image_channels} channels of each of {self.resolutions}, up to one of them"
            )
        if len(images[FIRST]) % (self.group_size or 1):
            # Groups would be of pictures of several sizes.
            raise ValueError(
                f"{len(images[FIRST])} samples do not divide into groups of {self.group_size}; set"
                " train.batch to a multiple of model.group_size, for each microbatch"
            )
        maps = {}
        x: Array | None = None  # [n, scales, h, w, c]: samples stay on their devices
        for size in reversed(taken):
            if x is not None:
                if size in self.attend:
                    x = x + _each(self.attend[size], x)
                if size in self.predictors:
                    maps[size] = x
            new = self.from_rgb[size](images[size])[:, None]
            x = new if x is None else jnp.concatenate([x, new], axis=1)
            if size > FIRST:
                x = _each(functools.partial(_down, self.blocks[size]), x)
        assert x is not None, "there are pictures of 4x4"
        # Of a stride that divides into the minibatch's groups: a scale is compared with itself.
        return Looks(maps, _each(lambda y: self.epilogue(y, None), x))

    def judge(
        self, looks: Looks, text: Float[Array, "n text_features"]
    ) -> Float[Array, "n predictions"]:
        """Logits of what `look` saw, given what `describe` made of any texts."""
        projection = self.projection(text)[:, None] / math.sqrt(looks.whole.shape[-1])
        whole = jnp.sum(looks.whole * projection, axis=-1) + self.alone(looks.whole)[..., 0]
        found = [whole]
        for size, x in looks.maps.items():
            repeated = jnp.repeat(text, x.shape[1], axis=0)
            logits = self.predictors[size](x.reshape(-1, *x.shape[2:]), repeated)
            wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
            found.append(jnp.mean(wide, axis=(1, 2)).reshape(x.shape[:2]))
        return jnp.concatenate(found, axis=1)


def _down(block: nn.Module, x: Float[Array, "n h w c"]) -> Float[Array, "n h/2 w/2 d"]:
    """Features of half the resolution."""
    found: Any = block(x, None)
    return found[0]


def _each(function: Callable[[Array], Array], x: Float[Array, "n s ..."]) -> Array:
    """A function of pictures [n, ...] of those of each scale."""
    y = function(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def example_inputs(module: Discriminator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments (shapes only) and keyword arguments for `module.init` and `init_on_host`."""
    n = module.group_size or 1
    images = {
        size: jax.ShapeDtypeStruct((n, size, size, module.image_channels), jnp.float32)
        for size in module.resolutions
    }
    text = jax.ShapeDtypeStruct((n, 2, module.text_dim), jnp.float32)
    return (images, text, jax.ShapeDtypeStruct((n,), jnp.int32)), {}
