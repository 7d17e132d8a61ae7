"""Aurora's generator (Zhu et al., 2023): a mapping of noise and text, and a synthesis of blocks.

Parameters are named as in the released code, its numbers behind an underscore: `synthesis.net.3.0.
attn_blocks.1.norm1.weight` is `synthesis/net_3/attn_blocks_1/norm1/scale`. What varies is passed as
a module; with the modules that reproduce the released code's faults, `released` is its generator.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ganjax.families.aurora.attention import SelfAttention
from ganjax.families.aurora.blocks import (
    ResidualConvBlock,
    Start,
    StyledConv,
    convolutions,
    fourier_input,
    of_batch,
    of_sample,
)
from ganjax.families.aurora.text import AcrossTexts, TextHead
from ganjax.families.aurora.transformer import (
    AttentionBlock,
    ResidualAttentionBlock,
    StyleRouter,
)
from ganjax.families.stylegan2.networks import Truncation, normalize_2nd_moment
from ganjax.layers.blocks import called
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.filtering import setup_filter, upsample2d
from ganjax.layers.initializers import zeros
from ganjax.layers.modulated import Eps, ModulatedConv
from ganjax.layers.moe import FeedForward, MixtureOfExperts
from ganjax.layers.mtm import ModulatedTransformConv
from ganjax.parallel.experts import Dropless, Execution

TRANSFORMED = 32  # pixels: from here on convolutions have no offsets
TOKENS = 77  # of CLIP's texts


def same(x: Array) -> Array:
    """What it is given."""
    return x


Texts = Float[Array, "n l text_dim"] | Float[Array, "n classes"] | Int[Array, "n"] | None


def as_it_is(name: str) -> Callable[[Array], Array]:
    """A text as the head has read it: in the place of an embedding of classes."""
    del name
    return same


def labels_alone(features: int, name: str) -> Callable[[Any, Any], tuple[Array, Array]]:
    """In the place of the text head: classes, which are as a whole what they are, without tokens.

    What embeds them is the mapping's `embed` (`use_class_label` of the released code).
    """
    del name

    def head(labels: Array | None, end: None = None) -> tuple[Array, Array]:
        del end
        if labels is None:
            raise ValueError(
                "a generator of classes was given none; give labels [n], or a row of weights for"
                " each sample [n, classes]"
            )
        return labels, jnp.zeros((len(labels), 0, features), jnp.float32)

    return head


class MappingNetwork(nn.Module):
    """Latents and a text, or a class, to w (Eq. 2).

    Attributes:
        w_dim: entries of w.
        layers: dense layers.
        features: of the hidden ones.
        lr_multiplier: of the dense layers.
        normalize_latent, normalize_text: what happens to both first.
        embed: makes, called with `name`, what comes before the latter: of classes, an embedding.
    """

    w_dim: int = 1024
    layers: int = 4
    features: int = 1024
    lr_multiplier: float = 0.01
    normalize_latent: Callable[[Array], Array] = normalize_2nd_moment
    normalize_text: Callable[[Array], Array] = normalize_2nd_moment
    embed: Callable[..., Callable[[Array], Array]] = as_it_is

    @nn.compact
    def __call__(
        self, z: Float[Array, "n latent_dim"], text: Float[Array, "n d"] | Int[Array, "n"]
    ) -> Float[Array, "n w_dim"]:
        known = self.normalize_text(self.embed(name="embedding")(text))
        x = jnp.concatenate([self.normalize_latent(z), known], axis=-1)
        widths = [self.features] * (self.layers - 1) + [self.w_dim]
        for index, width in enumerate(widths):
            x = EqualizedDense(
                width, "lrelu", lr_multiplier=self.lr_multiplier, name=f"dense{index}"
            )(x)
        return x


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the synthesis has at one resolution.

    Attributes:
        resolution: in pixels.
        channels: of the features.
        blocks: convolution blocks, the first of which doubles the resolution.
        conv, second: make their two convolutions, and `conv` the one to an image.
        attention: makes the block that follows each of them; None: none.
        experts: of its mixtures; fewer than 2: there are none.
    """

    resolution: int
    channels: int
    blocks: int = 2
    conv: Callable[..., nn.Module] = ModulatedConv
    second: Callable[..., nn.Module] = ModulatedTransformConv
    attention: Callable[..., nn.Module] | None = None
    experts: int = 0

    @property
    def num_ws(self) -> int:
        """Blocks, each of which has a w of its own."""
        return self.blocks * (1 if self.attention is None else 2)


def added(image: Array | None, y: Array, taps: Any) -> Array:
    """An image on top of that of half the resolution."""
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return y if image is None else y + upsample2d(image, setup_filter(taps))


def replaced(image: Array | None, y: Array, taps: Any) -> Array:
    """An image that owes nothing to that of half the resolution."""
    del image, taps
    return y


class Synthesis(nn.Module):
    """w and tokens to images of several resolutions: `Generator` has the attributes."""

    stages: tuple[Stage, ...]
    image_channels: int
    source: Callable[..., nn.Module]
    source_features: int
    gain: float
    taps: Any
    clamp: float | None
    accumulate: Callable[[Array | None, Array, Any], Array]
    final: Callable[[Array], Array]
    outputs: tuple[int, ...] | None
    through: Callable[..., Array]

    @nn.compact
    def __call__(
        self,
        ws: Float[Array, "n num_ws d"],
        tokens: Float[Array, "n l dt"],
        resolutions: tuple[int, ...] | None = None,
    ) -> dict[int, Float[Array, "n _ _ c"]]:
        """Images by resolution; about [-1, 1], not clipped.

        Args:
            resolutions: those of which there are images; none above is computed. None: all.
        """
        images: dict[int, Array] = {}
        image: Array | None = None
        x: Array | None = None
        index = 0
        for stage in self.stages:
            for number in range(stage.blocks):
                w, name = ws[:, index], f"net_{index}"
                if x is None:
                    start = Start(
                        stage.channels,
                        stage.resolution,
                        self.source_features,
                        self.source,
                        stage.second,
                        self.clamp,
                        name=name,
                    )
                    x = self.through(start, w)
                else:
                    block = ResidualConvBlock(
                        stage.channels,
                        stage.conv,
                        stage.second,
                        up=2 if number == 0 else 1,
                        gain=self.gain,
                        taps=self.taps,
                        clamp=self.clamp,
                        name=name,
                    )
                    x = self.through(block, x, w)
                index += 1
                if stage.attention is not None:
                    attention = stage.attention(name=f"net_{index}")
                    x = self.through(attention, x, ws[:, index], tokens)
                    index += 1
            assert x is not None, "a stage has a block"
            if all(of is None or stage.resolution in of for of in (resolutions, self.outputs)):
                size = f"{stage.resolution}x{stage.resolution}"
                to_image = StyledConv(
                    self.image_channels,
                    stage.conv,
                    kernel_size=1,
                    demodulate=False,
                    activation="linear",
                    clamp=self.clamp,
                    name=f"output_res_{size}",
                )
                # The last block's w is that of the image, too.
                y = self.final(to_image(x, ws[:, index - 1]))
                image = images[stage.resolution] = self.accumulate(image, y, self.taps)
            if resolutions is not None and stage.resolution >= max(resolutions):
                break
        return images


class Generator(nn.Module):
    """Aurora's generator.

    Collection "averages": `w_avg` [mapped_ws w_dim], a running mean of w, moved where mutable.
    Collection "moe": what each mixture of experts tells; see `layers.moe`.

    Attributes:
        stages: what there is at each resolution, from the lowest.
        latent_dim: entries of z.
        text_dim, context_dim: channels of the encoder's tokens, and of those that the blocks see.
        w_dim: entries of w.
        image_channels: of the images.
        text_head: makes the text head, called with `features`; `labels_alone`: there are classes.
        mapping_network: makes the mapping, called with `w_dim`.
        mapped_ws: w that the mapping makes: 1, for all blocks, or one for each.
        source, source_features: make the first features, and their channels.
        gain: of a convolution block's sum.
        taps: of the resampling filters.
        clamp: limit of what convolutions return; None: none.
        accumulate: an image with that of half the resolution, as of `added`.
        final: of the images of each resolution, before they are accumulated.
        outputs: resolutions of which there are images; None: all.
        through: passes a block, as of `layers.blocks`.
        w_avg_beta: share of the old mean of w in a new one.
    """

    stages: tuple[Stage, ...]
    latent_dim: int = 128
    text_dim: int = 768
    context_dim: int = 1024
    w_dim: int = 1024
    image_channels: int = 3
    text_head: Callable[..., nn.Module] = TextHead
    mapping_network: Callable[..., nn.Module] = MappingNetwork
    mapped_ws: int = 1
    source: Callable[..., nn.Module] = fourier_input
    source_features: int = 1600
    gain: float = 0.4
    taps: Any = (1, 3, 3, 1)
    clamp: float | None = None
    accumulate: Callable[[Array | None, Array, Any], Array] = added
    final: Callable[[Array], Array] = same
    outputs: tuple[int, ...] | None = None
    through: Callable[..., Array] = called
    w_avg_beta: float = 0.998

    def setup(self) -> None:
        self.head = self.text_head(features=self.context_dim, name="text_head")
        if self.mapped_ws not in (1, self.num_ws):
            raise ValueError(
                f"mapped_ws={self.mapped_ws}: the generator has {self.num_ws} blocks; set it to"
                " that, or to 1 for one w for all of them"
            )
        width = self.mapped_ws * self.w_dim
        self.mapping = self.mapping_network(w_dim=width)
        self.w_avg = self.variable("averages", "w_avg", zeros, None, (width,))
        self.synthesis = Synthesis(
            self.stages,
            self.image_channels,
            self.source,
            self.source_features,
            self.gain,
            self.taps,
            self.clamp,
            self.accumulate,
            self.final,
            self.outputs,
            self.through,
        )

    @property
    def num_ws(self) -> int:
        """Entries of the list of w that the synthesis takes."""
        return sum(stage.num_ws for stage in self.stages)

    def blocks(self) -> tuple[tuple[Stage, range], ...]:
        """Each stage with the numbers of its blocks, which are those of their w."""
        ends = list(itertools.accumulate(stage.num_ws for stage in self.stages))
        return tuple(
            (stage, range(end - stage.num_ws, end)) for stage, end in zip(self.stages, ends)
        )

    @property
    def resolution(self) -> int:
        """Of the largest images, in pixels."""
        return self.stages[-1].resolution

    def __call__(
        self,
        z: Float[Array, "n latent_dim"],
        text: Texts,
        end: Int[Array, "n"] | None = None,
        *,
        truncation: Truncation = 1.0,
        cutoff: int | None = None,
    ) -> Float[Array, "n h w c"]:
        """The largest images; about [-1, 1], not clipped.

        Args:
            text, end: as of `TextHead`; of a generator of classes (`labels_alone`), labels.
            truncation, cutoff: as of `truncated`, towards the running mean of w.
        """
        ws, tokens = self.styles(z, text, end, truncation, cutoff)
        return self.synthesize(ws, tokens)[self.resolution]

    def styles(
        self,
        z: Float[Array, "n latent_dim"],
        text: Texts,
        end: Int[Array, "n"] | None = None,
        truncation: Truncation = 1.0,
        cutoff: int | None = None,
    ) -> tuple[Float[Array, "n num_ws w_dim"], Float[Array, "n tokens context_dim"]]:
        """The w of each block, and the tokens that they see; arguments as of the call."""
        whole, tokens = self.read(text, end)
        return self.map(z, whole, truncation, cutoff), tokens

    def read(
        self, text: Texts, end: Int[Array, "n"] | None = None
    ) -> tuple[Array, Float[Array, "n tokens context_dim"]]:
        """What the text head makes of texts: of each as a whole, and of its other tokens."""
        found: Any = self.head(text, end)
        return found

    def map(
        self,
        z: Float[Array, "n latent_dim"],
        whole: Array,
        truncation: Truncation = 1.0,
        cutoff: int | None = None,
    ) -> Float[Array, "n num_ws w_dim"]:
        """The w of each block, of latents and of texts as wholes; truncation as of the call."""
        w = self.mapping(z, whole)
        average = self.w_avg.value
        if self.is_mutable_collection("averages") and not self.is_initializing():
            now = lax.stop_gradient(jnp.mean(w, axis=0)).astype(average.dtype)
            self.w_avg.value = now + (average - now) * self.w_avg_beta
        shape = (len(w), self.num_ws, self.w_dim)
        ws = jnp.broadcast_to(w.reshape(len(w), self.mapped_ws, self.w_dim), shape)
        centre = average.reshape(1, self.mapped_ws, self.w_dim)
        return truncated(ws, centre, truncation, cutoff)

    def synthesize(
        self,
        ws: Float[Array, "n num_ws w_dim"],
        tokens: Float[Array, "n tokens context_dim"],
        resolutions: tuple[int, ...] | None = None,
    ) -> dict[int, Float[Array, "n _ _ c"]]:
        """Images by resolution, from what `styles` gives; about [-1, 1], not clipped.

        Args:
            resolutions: those of which there are images; blocks above do nothing. None: all.
        """
        return self.synthesis(ws, tokens, resolutions)


def truncated(
    ws: Float[Array, "n num_ws d"],
    centre: Float[Array, "#n layers d"],
    truncation: Truncation,
    cutoff: int | None = None,
) -> Float[Array, "n num_ws d"]:
    """The w of each block, moved to a centre: the mean of all w, or that of a text's.

    Args:
        truncation: distance from the centre that is kept, 1: all of it.
        cutoff: blocks, from the first one, that are truncated; None: all.
    """
    if isinstance(truncation, int | float) and truncation == 1:
        return ws
    first = slice(None, cutoff)
    moved = centre[:, first]
    moved = moved + (ws[:, first] - moved) * jnp.asarray(truncation, ws.dtype).reshape(-1, 1, 1)
    return ws.at[:, first].set(moved)


def attention(
    experts: int,
    depth: int,
    *,
    heads: int = 8,
    head_dim: int | None = 64,
    groups: int = 32,
    eps: Eps = of_sample,
    gain: float = 0.3,
    execution: Execution = Dropless(),  # noqa: B008
    dtype: Any = None,
) -> Callable[..., nn.Module]:
    """What makes a stage's attention blocks.

    Args:
        experts: of each feed-forward network; fewer than 2: one network for all tokens.
        depth, heads, head_dim, groups, gain: as of `ResidualAttentionBlock`.
        eps: of the demodulation.
        execution: how tokens meet experts, as of `MixtureOfExperts`.
        dtype: as of `ResidualAttentionBlock`. Routers compute in float32 at least.
    """
    conv = functools.partial(ModulatedConv, eps=eps)
    feed_forward: Callable[..., nn.Module] = FeedForward
    if experts > 1:
        router = functools.partial(StyleRouter, conv=conv)
        feed_forward = functools.partial(MixtureOfExperts, experts, router, execution=execution)
    block = functools.partial(
        AttentionBlock,
        self_attention=functools.partial(SelfAttention, conv=functools.partial(conv, dtype=dtype)),
        feed_forward=feed_forward,
    )
    return functools.partial(
        ResidualAttentionBlock,
        depth,
        heads=heads,
        head_dim=head_dim,
        gain=gain,
        groups=groups,
        dtype=dtype,
        block=block,
    )


def channels_at(resolution: int, base: int = 16384, most: int = 1600) -> int:
    """Channels of the features at a resolution."""
    return min(base // resolution, most)


# Of the released model by resolution: blocks, kernels, experts, attention blocks.
PUBLISHED = {
    4: (3, 1, 0, 0),
    8: (3, 1, 4, 2),
    16: (3, 2, 8, 2),
    32: (2, 4, 16, 2),
    64: (2, 8, 16, 1),
}


def stages(
    table: Mapping[int, tuple[int, int, int, int]] = PUBLISHED,
    base: int = 16384,
    most: int = 1600,
    eps: Eps = of_sample,
    transformed: int = TRANSFORMED,
    executions: Mapping[int, Execution] | None = None,
    dtype: Any = None,
    **options: Any,
) -> tuple[Stage, ...]:
    """Stages of a generator whose blocks with offsets are those of the paper, up to 16x16.

    Args:
        table: by resolution: convolution blocks, kernels of which a sample mixes its own, experts,
            and attention blocks after each convolution block; 0: none.
        base, most: as of `channels_at`.
        eps: of the demodulation.
        transformed: pixels from which on convolutions have no offsets.
        executions: how tokens meet experts, by resolution; where there is none: `Dropless`.
        dtype: of the computation of convolutions, attention and experts; None: as input and kernel
            promote.
        options: of `attention`.
    """
    found = []
    for resolution, (blocks, kernels, experts, depth) in table.items():
        transform = ModulatedTransformConv if resolution < transformed else None
        conv, second = convolutions(kernels, transform, eps=eps, dtype=dtype)
        execution = (executions or {}).get(resolution, Dropless())
        after = None
        if depth:
            after = attention(experts, depth, eps=eps, execution=execution, dtype=dtype, **options)
        channels = channels_at(resolution, base, most)
        found.append(Stage(resolution, channels, blocks, conv, second, after, experts))
    return tuple(found)


def released(**fields: Any) -> Generator:
    """The generator whose weights its authors have published, with their code's faults.

    Args:
        fields: in place of its own.
    """
    head = functools.partial(TextHead, attention=AcrossTexts)
    own: dict[str, Any] = {"stages": stages(eps=of_batch), "text_head": head}
    return Generator(**own | fields)


def example_inputs(module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments (shapes only) and keyword arguments for `module.init` and `init_on_host`."""
    if not isinstance(module, Generator):
        raise ValueError(f"{type(module).__name__} is no network of Aurora")
    z = jax.ShapeDtypeStruct((1, module.latent_dim), jnp.float32)
    if module.text_head is labels_alone:
        return (z, jax.ShapeDtypeStruct((1,), jnp.int32)), {}
    text = jax.ShapeDtypeStruct((1, TOKENS, module.text_dim), jnp.float32)
    return (z, text, jax.ShapeDtypeStruct((1,), jnp.int32)), {}
