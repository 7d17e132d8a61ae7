"""Generators and discriminators of BigGAN and BigGAN-deep (Brock et al., 2019, appendix B).

The SAGAN baseline of Table 1 is `shared_dim=0, hierarchical=False`. Modules and parameters are
named as in the official PyTorch code, `blocks.0.1.theta.weight` being `blocks_0_1/theta/kernel`.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.families.biggan import blocks
from ganjax.layers import initializers
from ganjax.layers.attention import SelfAttention
from ganjax.layers.linear import Embed
from ganjax.layers.norm import BatchNorm, ConditionalBatchNorm
from ganjax.layers.spectral import SpectralConv, SpectralDense, SpectralEmbed

INITIALIZERS = {
    "orthogonal": initializers.Orthogonal(),
    "normal": initializers.Normal(0.02),
    "xavier": initializers.XavierUniform(),
}

# Channels after the first layer and after each stage, as multiples of `channels`. Each stage of a
# generator doubles the resolution, from `bottom_width`.
GENERATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
# Channels after each block of a discriminator: the deep one has its first entry from a convolution.
# NOTE: the official code has no discriminator for 512; this is the paper's (Table 6).
DISCRIMINATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}
# Blocks of a discriminator that halve the resolution; the others keep it.
DISCRIMINATOR_HALVINGS = {32: 2, 64: 4, 128: 5, 256: 6, 512: 7}


def _table(table: dict[int, Any], resolution: int) -> Any:
    if resolution not in table:
        raise ValueError(
            f"resolution={resolution}: BigGAN is defined for {sorted(table)}; set resolution to one"
            " of these"
        )
    return table[resolution]


def _check_counts(module: nn.Module, *fields: str) -> None:
    for name in fields:
        if getattr(module, name) < 1:
            raise ValueError(f"{name}={getattr(module, name)}; set {name} to 1 or more")


def _initializer(name: str) -> initializers.Initializer:
    if name not in INITIALIZERS:
        raise ValueError(
            f"initializer={name!r}: known are {sorted(INITIALIZERS)}; set initializer to one"
        )
    return INITIALIZERS[name]


class _Generator(nn.Module):
    """What BigGAN's and BigGAN-deep's generators share.

    Attributes:
        resolution: of the images, in pixels: 32, 64, 128, 256 or 512.
        channels: the paper's channel multiplier `ch`.
        latent_dim: entries of z; with `hierarchical`, a multiple of the number of stages plus one
            (BigGAN only).
        classes: number of classes.
        attention: resolutions whose stage ends with self-attention, as if `bottom_width` were 4.
        shared_dim: entries of the class embedding that all layers share; 0: each normalisation has
            a table of its own (Table 1's column "Shared").
        hierarchical: parts of z reach every block, beside the class (column "Hier.").
        image_channels: of the images.
        bottom_width: pixels, width of the first feature map; images grow with it: at other widths
            than 4 they have `resolution * bottom_width / 4` pixels.
        norm: makes the batch normalisation, called with `eps`.
        initializer: of all weights: "orthogonal", "normal" (std 0.02) or "xavier".
        bn_eps: of the conditional normalisations; the last one has 1e-5, as in the official code.
        sn_eps: of the spectral norm.
        dtype: of the computation; None: float32, or whatever the inputs promote to. Parameters are
            float32, and so are statistics, spectral norm and the images.
    """

    resolution: int
    channels: int = 96
    latent_dim: int = 120
    classes: int = 1000
    attention: tuple[int, ...] = (64,)
    shared_dim: int = 128
    hierarchical: bool = True
    image_channels: int = 3
    bottom_width: int = 4
    norm: Callable[..., nn.Module] = BatchNorm
    conv: Callable[..., nn.Module] = SpectralConv
    dense: Callable[..., nn.Module] = SpectralDense
    activation: Callable[[Array], Array] = jax.nn.relu
    initializer: str = "orthogonal"
    bn_eps: float = 1e-5
    sn_eps: float = 1e-12
    dtype: Any = None

    def setup(self) -> None:
        _check_counts(self, "channels", "latent_dim")
        widths = [self.channels * width for width in _table(GENERATOR_WIDTHS, self.resolution)]
        if self.hierarchical and not self.shared_dim:
            raise ValueError(
                "hierarchical=True needs a shared embedding to join the latents to, and"
                " shared_dim=0 has none; set hierarchical=False or shared_dim=128"
            )
        init = _initializer(self.initializer)
        conv = functools.partial(self.conv, kernel_init=init, eps=self.sn_eps, dtype=self.dtype)
        dense = functools.partial(self.dense, kernel_init=init, eps=self.sn_eps)
        table = functools.partial(Embed, classes=self.classes, embedding_init=init)
        norm = functools.partial(
            ConditionalBatchNorm,
            conditioning=functools.partial(dense, use_bias=False) if self.shared_dim else table,
            norm=functools.partial(self.norm, eps=self.bn_eps),
        )
        if self.shared_dim:
            self.shared = table(features=self.shared_dim)
        self.linear = dense(features=widths[0] * self.bottom_width**2)
        self.blocks = self._blocks(widths, conv, norm)
        self.output_norm = self.norm(eps=1e-5)
        self.output_conv = conv(features=self.image_channels)

    def _blocks(self, widths: list[int], conv: Any, norm: Any) -> list[list[nn.Module]]:
        raise NotImplementedError

    def _conditions(self, z: Array, y: Array) -> tuple[Array, list[Array]]:
        """What the first layer sees, and what each entry of `blocks` is conditioned on."""
        raise NotImplementedError

    def __call__(
        self,
        z: Float[Array, "n latent_dim"],
        labels: Int[Array, "n"] | Float[Array, "n classes"],
        *,
        train: bool,
    ) -> Float[Array, "n h w c"]:
        """Images in [-1, 1].

        Args:
            z: latents.
            labels: classes, or mixtures of them by weights (for interpolation).
            train: normalise by the batch's statistics; False: by the stored ones.
        """
        return self.synthesize(z, self.embed(labels), train=train)

    def embed(self, labels: Int[Array, "n"] | Float[Array, "n classes"]) -> Array:
        """Shared embeddings [n, shared_dim] of the labels; without them, the labels."""
        return self.shared(labels) if self.shared_dim else labels

    def synthesize(
        self, z: Float[Array, "n latent_dim"], y: Array, *, train: bool
    ) -> Float[Array, "n h w c"]:
        """Images from latents and what `embed` gave."""
        if z.shape[-1] != self.latent_dim:
            raise ValueError(
                f"z has {z.shape[-1]} entries, the generator wants latent_dim={self.latent_dim}"
            )
        first, conditions = self._conditions(z, y)
        x = self.linear(first)
        x = x.reshape(x.shape[0], self.bottom_width, self.bottom_width, -1)  # [n, h, w, c]
        if self.dtype is not None:
            x = x.astype(self.dtype)
        for (block, *attention), condition in zip(self.blocks, conditions, strict=True):
            x = block(x, condition, train=train)
            for layer in attention:
                x = layer(x)
        x = self.output_conv(self.activation(self.output_norm(x, train=train)))
        return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class Generator(_Generator):
    """BigGAN's generator (Tables 4 to 6)."""

    def _blocks(self, widths, conv, norm):
        entries = []
        for stage, width in enumerate(widths[1:]):
            block = blocks.GeneratorBlock(width, conv, norm, activation=self.activation)
            attend = 4 * 2 ** (stage + 1) in self.attention
            entries.append([block, *([SelfAttention(conv)] if attend else [])])
        return entries

    def _conditions(self, z, y):
        if not self.hierarchical:
            return z, [y] * len(self.blocks)
        slots = len(self.blocks) + 1
        if self.latent_dim % slots:
            raise ValueError(
                f"latent_dim={self.latent_dim}: hierarchical=True splits the latents into {slots}"
                f" equal parts; set latent_dim to a multiple of {slots}, such as"
                f" {max(self.latent_dim // slots, 1) * slots}"
            )
        first, *others = jnp.split(z, slots, axis=1)
        return first, [jnp.concatenate([y, part], axis=1) for part in others]


class DeepGenerator(_Generator):
    """BigGAN-deep's generator (Tables 7 to 9): the whole of z reaches every block.

    Attributes:
        depth: blocks at each resolution; the last one of them doubles it.
    """

    depth: int = 2

    def _blocks(self, widths, conv, norm):
        entries = []
        for stage, (before, after) in enumerate(itertools.pairwise(widths)):
            for index in range(self.depth):
                last = index == self.depth - 1
                block = blocks.DeepGeneratorBlock(
                    after if last else before, conv, norm, up=last, activation=self.activation
                )
                attend = last and 4 * 2 ** (stage + 1) in self.attention
                entries.append([block, *([SelfAttention(conv)] if attend else [])])
        return entries

    def _conditions(self, z, y):
        if not self.hierarchical:
            return z, [y] * len(self.blocks)
        both = jnp.concatenate([y, z], axis=1)
        return both, [both] * len(self.blocks)


class _Discriminator(nn.Module):
    """What BigGAN's and BigGAN-deep's discriminators share.

    Attributes:
        resolution: of the images, in pixels: 32, 64, 128, 256 or 512.
        channels: the paper's channel multiplier `ch`.
        classes: number of classes.
        attention: resolutions whose stage ends with self-attention.
            NOTE: at 32 all four stages count as 16, as in the official code.
        image_channels: of the images.
        initializer, sn_eps, dtype: as of the generator; logits are float32.
    """

    resolution: int
    channels: int = 96
    classes: int = 1000
    attention: tuple[int, ...] = (64,)
    image_channels: int = 3
    conv: Callable[..., nn.Module] = SpectralConv
    dense: Callable[..., nn.Module] = SpectralDense
    embedding: Callable[..., nn.Module] = SpectralEmbed
    activation: Callable[[Array], Array] = jax.nn.relu
    initializer: str = "orthogonal"
    sn_eps: float = 1e-12
    dtype: Any = None

    def setup(self) -> None:
        _check_counts(self, "channels")
        widths = _table(DISCRIMINATOR_WIDTHS, self.resolution)
        init = _initializer(self.initializer)
        conv = functools.partial(self.conv, kernel_init=init, eps=self.sn_eps, dtype=self.dtype)
        self._make_stem([self.channels * width for width in widths], conv)
        self.linear = self.dense(features=1, kernel_init=init, eps=self.sn_eps)
        self.embed = self.embedding(
            classes=self.classes,
            features=self.channels * widths[-1],
            embedding_init=init,
            eps=self.sn_eps,
        )

    def _make_stem(self, widths: list[int], conv: Any) -> None:
        """Sets `blocks`: stages of blocks, the last of a stage maybe self-attention."""
        raise NotImplementedError

    def _stem(self, x: Array) -> Array:
        return x

    def _attention(self, stage: int, conv: Any) -> list[nn.Module]:
        halvings = min(stage + 1, DISCRIMINATOR_HALVINGS[self.resolution])
        resolution = 16 if self.resolution == 32 else self.resolution // 2**halvings
        return [SelfAttention(conv)] if resolution in self.attention else []

    def __call__(
        self,
        images: Float[Array, "n h w c"],
        labels: Int[Array, "n"] | Float[Array, "n classes"],
    ) -> Float[Array, "n"]:
        """Logits: the higher, the more real, given the class (Miyato and Koyama, 2018).

        Args:
            images: in [-1, 1].
            labels: classes, or mixtures of them by weights.
        """
        wanted = (self.resolution, self.resolution, self.image_channels)
        if images.shape[1:] != wanted:
            raise ValueError(
                f"images are {images.shape[1:]}, the discriminator wants {wanted}; set resolution"
                " and image_channels to the data's"
            )
        x = self._stem(images if self.dtype is None else images.astype(self.dtype))
        for stage in self.blocks:
            for layer in stage:
                x = layer(x)
        h = self.activation(x)
        h = jnp.sum(h, axis=(1, 2), dtype=jnp.promote_types(h.dtype, jnp.float32))  # [n, c]
        unconditional = self.linear(h)[:, 0]
        return unconditional + jnp.sum(self.embed(labels) * h, axis=-1)


class Discriminator(_Discriminator):
    """BigGAN's discriminator (Tables 4 to 6).

    Attributes:
        wide: inner channels of a block are those of its output, otherwise those of its input.
    """

    wide: bool = True

    def _make_stem(self, widths, conv):
        stages = []
        for stage, width in enumerate(widths):
            block = blocks.DiscriminatorBlock(
                width,
                conv,
                down=stage < DISCRIMINATOR_HALVINGS[self.resolution],
                first=stage == 0,
                wide=self.wide,
                activation=self.activation,
            )
            stages.append([block, *self._attention(stage, conv)])
        self.blocks = stages


class DeepDiscriminator(_Discriminator):
    """BigGAN-deep's discriminator (Tables 7 to 9).

    Attributes:
        depth: blocks at each resolution; the first one of them halves it.
    """

    depth: int = 2

    def _make_stem(self, widths, conv):
        self.input_conv = conv(features=widths[0])
        stages = []
        for stage, width in enumerate(widths[1:]):
            down = stage < DISCRIMINATOR_HALVINGS[self.resolution]
            layers: list[nn.Module] = [
                blocks.DeepDiscriminatorBlock(
                    width, conv, down=down and index == 0, activation=self.activation
                )
                for index in range(self.depth)
            ]
            stages.append([*layers, *self._attention(stage, conv)])
        self.blocks = stages

    def _stem(self, x):
        return self.input_conv(x)


def example_inputs(module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments (shapes only) and keyword arguments for `module.init` and `init_on_host`."""
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    if isinstance(module, _Generator):
        return (jax.ShapeDtypeStruct((1, module.latent_dim), jnp.float32), labels), {"train": False}
    if isinstance(module, _Discriminator):
        size = (1, module.resolution, module.resolution, module.image_channels)
        return (jax.ShapeDtypeStruct(size, jnp.float32), labels), {}
    raise ValueError(f"{type(module).__name__} is no network of BigGAN")
