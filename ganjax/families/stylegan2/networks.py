"""Generator and discriminator of StyleGAN2 (Karras et al., 2020), as in its ADA release.

Modules are named as in the official PyTorch code: `synthesis.b8.conv0.affine.weight` is
`synthesis/b8/conv0/affine/kernel`. A variant of the convolution is passed as a module: `conv` for
all, `conv_at` for those of some resolutions.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jax import lax
from jaxtyping import Array, Float, Int

from ganjax.families.stylegan2.blocks import (
    FIRST,
    DiscriminatorBlock,
    DiscriminatorEpilogue,
    Noise,
    SynthesisBlock,
    SynthesisLayer,
)
from ganjax.layers.activation import activation_of
from ganjax.layers.equalized import EqualizedConv, EqualizedDense
from ganjax.layers.folding import fold, side_by_side, unfold
from ganjax.layers.initializers import zeros
from ganjax.layers.modulated import ModulatedConv

Labels = Int[Array, "n"] | Float[Array, "n classes"] | None
NOISE_MODES = ("const", "none")
Truncation = int | float | Float[Array, "n"]  # the same for all samples, or one for each
ARCHITECTURES = ("orig", "skip", "resnet")
NORMALISATION_EPS = 1e-8


@runtime_checkable
class StyleGenerator(Protocol):
    """A generator that losses, draws and sheets here can play with: this one, and StyleGAN3's.

    Beside what is listed it has the methods `styles(z, labels, truncation)` and `synthesize(ws)`,
    to be applied, the latter with noise if `noise_shapes` has any.
    """

    resolution: int
    image_channels: int
    latent_dim: int
    classes: int
    conv_at: FrozenDict[int, Callable[..., nn.Module]]

    @property
    def num_ws(self) -> int:
        """Entries of the list of w that the synthesis takes."""
        ...

    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """(h, w) of the noise of each convolution, by name."""
        ...

    def clone(self, **fields: Any) -> Any:
        """As `nn.Module.clone`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """As `nn.Module.apply`."""
        ...


def resolutions(resolution: int) -> list[int]:
    """4, 8, ... up to a resolution."""
    if resolution < FIRST or resolution & (resolution - 1):
        raise ValueError(
            f"config.data.resolution={resolution}: StyleGAN2's images are squares of a power of"
            f" two; set one from {FIRST} on"
        )
    return [2**k for k in range(2, resolution.bit_length())]


def normalize_2nd_moment(
    x: Float[Array, "n d"], eps: float = NORMALISATION_EPS
) -> Float[Array, "n d"]:
    """Vectors whose mean square is 1."""
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)


class MappingNetwork(nn.Module):
    """Latents and labels to w (StyleGAN, section 2).

    Collection "averages": `w_avg` [w_dim], a running mean of w, moved where it is mutable.

    Attributes:
        latent_dim: entries of z; 0: none, w depends on the label alone.
        classes: number of classes, or entries of a condition; 0: none.
        w_dim: entries of w.
        layers: dense layers.
        embed_features, layer_features: of the label's embedding and of hidden layers; None: w_dim.
        lr_multiplier: of the dense layers.
        w_avg_beta: share of the old mean in a new one; None: no mean is kept.
            NOTE: 0.998 as in the stylegan3 release; stylegan2-ada-pytorch has 0.995.
    """

    latent_dim: int = 512
    classes: int = 0
    w_dim: int = 512
    layers: int = 8
    embed_features: int | None = None
    layer_features: int | None = None
    activation: str = "lrelu"
    lr_multiplier: float = 0.01
    w_avg_beta: float | None = 0.998

    @nn.compact
    def __call__(
        self, z: Float[Array, "n latent_dim"] | None, labels: Labels = None
    ) -> Float[Array, "n w_dim"]:
        """w, without truncation."""
        parts = []
        if self.latent_dim:
            if z is None or z.shape[-1] != self.latent_dim:
                given = None if z is None else z.shape
                raise ValueError(f"z has shape {given}, the mapping wants [n, {self.latent_dim}]")
            parts.append(normalize_2nd_moment(z))
        if self.classes:
            if labels is None:
                raise ValueError(f"labels are None, and the mapping has {self.classes} classes")
            embed = EqualizedDense(
                self.embed_features or self.w_dim, inputs=self.classes, name="embed"
            )
            parts.append(normalize_2nd_moment(embed(labels)))
        x = jnp.concatenate(parts, axis=-1)
        widths = [self.layer_features or self.w_dim] * (self.layers - 1) + [self.w_dim]
        for index, width in enumerate(widths):
            x = EqualizedDense(
                width, self.activation, lr_multiplier=self.lr_multiplier, name=f"fc{index}"
            )(x)
        if self.w_avg_beta is not None:
            average = self.variable("averages", "w_avg", zeros, None, (self.w_dim,))
            if self.is_mutable_collection("averages") and not self.is_initializing():
                now = lax.stop_gradient(jnp.mean(x, axis=0)).astype(average.value.dtype)
                average.value = now + (average.value - now) * self.w_avg_beta
        return x


def spread(
    w: Float[Array, "n w_dim"],
    num_ws: int,
    average: Float[Array, "w_dim"],
    truncation: Truncation = 1.0,
    cutoff: int | None = None,
) -> Float[Array, "n num_ws w_dim"]:
    """One w for each of `num_ws` layers, truncated as `Generator.styles` says."""
    ws = jnp.broadcast_to(w[:, None], (w.shape[0], num_ws, w.shape[1]))
    if isinstance(truncation, int | float) and truncation == 1:
        return ws
    truncated = average + (ws - average) * jnp.asarray(truncation).reshape(-1, 1, 1)
    if cutoff is None:
        return truncated
    return jnp.where(jnp.arange(num_ws)[:, None] < cutoff, truncated, ws)


class Synthesis(nn.Module):
    """w to images: `Generator` has the attributes."""

    resolution: int
    image_channels: int
    channel_base: int
    channel_max: int
    architecture: str
    layer: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]
    conv_at: FrozenDict[int, Callable[..., nn.Module]]
    taps: Any
    clamp: float | None
    dtype: Any
    narrow: int
    lanes: int

    def setup(self) -> None:
        check_architecture(self.architecture, "config.model.g_architecture")
        sizes = resolutions(self.resolution)
        channels = [channels_at(size, self.channel_base, self.channel_max) for size in sizes]
        convs = [self.conv_at.get(size, self.conv) for size in sizes]
        pixels = side_by_side(channels, self.lanes)
        if any(number > 1 and conv is not ModulatedConv for number, conv in zip(pixels, convs)):
            pixels = [1] * len(sizes)
        blocks = []
        for index, size in enumerate(sizes):
            last = index == len(sizes) - 1
            block = SynthesisBlock(
                channels[index],
                size,
                residual=self.architecture == "resnet",
                to_rgb=last or self.architecture == "skip",
                image_channels=self.image_channels,
                layer=functools.partial(self.layer, conv=convs[index]),
                taps=self.taps,
                clamp=self.clamp,
                dtype=dtype_at(size, self.resolution, self.dtype, self.narrow),
                pixels=pixels[index],
                name=f"b{size}",
            )
            blocks.append(block)
        self.blocks = blocks

    def __call__(
        self,
        ws: Float[Array, "n num_ws d"],
        noise: Noise = "const",
        joined: Float[Array, "n e"] | None = None,
    ) -> Float[Array, "n h w c"]:
        """Images, float32; about [-1, 1], not clipped.

        Args:
            joined: further channels of the learned constant, the same at all of its places.
        """
        if isinstance(noise, str) and noise not in NOISE_MODES:
            raise ValueError(f"noise={noise!r}; give arrays by name, or one of {NOISE_MODES}")
        x = None if joined is None else joined[:, None, None]
        image: Array | None = None
        first, pixels = 0, 1
        for block in self.blocks:
            if x is not None and block.pixels == 1:
                x = unfold(x, pixels)
            pixels = block.pixels
            own = noise
            if not isinstance(noise, str):
                prefix = f"b{block.resolution}."
                own = {k.removeprefix(prefix): v for k, v in noise.items() if k.startswith(prefix)}
            # The w of an image is also that of the next block's first convolution.
            x, image = block(x, image, ws[:, first : first + block.convs + 1], own)
            first += block.convs
        assert image is not None, "the last block makes an image"
        return image


class Generator(nn.Module):
    """StyleGAN2's generator.

    Attributes:
        resolution: of the images, in pixels: a power of two.
        image_channels: of the images.
        latent_dim: entries of z.
        classes: number of classes, or entries of a condition; 0: unconditional.
        w_dim: entries of w.
        channel_base, channel_max: the layers at a resolution have the base divided by it channels,
            at most the maximum. 32768 and 512 are the paper's config F, 16384 its small one.
        architecture: "skip" (images of all resolutions are added), "resnet", or "orig" (figure 7).
        mapping_network: makes the mapping network, called with `latent_dim`, `classes` and `w_dim`.
        conv: makes the convolutions, called with `features`, `up`, `taps` and `dtype`.
        conv_at: what makes those of some resolutions instead, by resolution.
        activation: of the convolutions.
        use_noise: convolutions add noise.
        taps: of the resampling filters.
        clamp: limit of what convolutions return; None: none. The official code has 256 where it
            computes in half precision.
        dtype: of the computation at the highest resolutions; None: as inputs and parameters
            promote. Parameters, mapping and images are float32.
        narrow: the number of these resolutions.
        lanes: channels that the device computes at once: layers with at most half as many lay
            pixels side by side (`layers/folding.py`), if they are all `ModulatedConv`; 0: none do.
    """

    resolution: int
    image_channels: int = 3
    latent_dim: int = 512
    classes: int = 0
    w_dim: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    architecture: str = "skip"
    mapping_network: Callable[..., nn.Module] = MappingNetwork
    conv: Callable[..., nn.Module] = ModulatedConv
    conv_at: FrozenDict[int, Callable[..., nn.Module]] = FrozenDict()
    activation: str = "lrelu"
    use_noise: bool = True
    taps: Any = (1, 3, 3, 1)
    clamp: float | None = None
    dtype: Any = None
    narrow: int = 4
    lanes: int = 0

    def setup(self) -> None:
        activation_of(self.activation)
        self.mapping = self.mapping_network(
            latent_dim=self.latent_dim, classes=self.classes, w_dim=self.w_dim
        )
        self.synthesis = Synthesis(
            self.resolution,
            self.image_channels,
            self.channel_base,
            self.channel_max,
            self.architecture,
            functools.partial(
                SynthesisLayer,
                use_noise=self.use_noise,
                activation=self.activation,
                taps=self.taps,
                clamp=self.clamp,
            ),
            self.conv,
            self.conv_at,
            self.taps,
            self.clamp,
            self.dtype,
            self.narrow,
            self.lanes,
        )

    @property
    def num_ws(self) -> int:
        """Entries of the list of w that the synthesis takes."""
        return 2 * len(resolutions(self.resolution))

    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """(h, w) of the noise of each convolution, by name: "b8.conv0"."""
        if not self.use_noise:
            return {}
        return {
            f"b{size}.conv{index}": (size, size)
            for size in resolutions(self.resolution)
            for index in ((1,) if size == FIRST else (0, 1))
        }

    def __call__(
        self,
        z: Float[Array, "n latent_dim"],
        labels: Labels = None,
        *,
        noise: Noise = "const",
        truncation: Truncation = 1.0,
        cutoff: int | None = None,
    ) -> Float[Array, "n h w c"]:
        """Images, float32; about [-1, 1], not clipped.

        Args:
            labels: classes, or weights of classes.
            noise: "const" (stored), "none", or arrays by the names of `noise_shapes`.
            truncation: as of `styles`.
            cutoff: as of `styles`.
        """
        return self.synthesize(self.styles(z, labels, truncation, cutoff), noise)

    def styles(
        self,
        z: Float[Array, "n latent_dim"],
        labels: Labels = None,
        truncation: Truncation = 1.0,
        cutoff: int | None = None,
    ) -> Float[Array, "n num_ws w_dim"]:
        """The w of each layer (StyleGAN, appendix B for the truncation).

        Args:
            truncation: distance from the mean w that is kept, 1: all of it.
            cutoff: layers, from the first one, that are truncated; None: all.
        """
        w = self.mapping(z, labels)
        average: Any = self.mapping.get_variable("averages", "w_avg")
        return spread(w, self.num_ws, average, truncation, cutoff)

    def synthesize(
        self, ws: Float[Array, "n num_ws w_dim"], noise: Noise = "const"
    ) -> Float[Array, "n h w c"]:
        """Images from the w of each layer."""
        return self.synthesis(ws, noise)


class Discriminator(nn.Module):
    """StyleGAN2's discriminator; labels enter by projection (Miyato and Koyama, 2018).

    Attributes:
        resolution, image_channels, classes, channel_base, channel_max, taps, dtype, narrow,
            lanes: as of the generator; logits are float32.
        architecture: "resnet", "skip" or "orig" (figure 7).
        cmap_dim: entries of the label's projection; None: the channels at 4x4.
        mapping_network: makes the mapping of labels, called with `latent_dim`, `classes`, `w_dim`
            and `w_avg_beta`.
        clamp: limit of what convolutions return; None: none.
        group_size, group_channels: of the standard deviation over the minibatch.
        activation, epilogue_activation: of the blocks and of what follows them.
    """

    resolution: int
    image_channels: int = 3
    classes: int = 0
    channel_base: int = 32768
    channel_max: int = 512
    architecture: str = "resnet"
    cmap_dim: int | None = None
    mapping_network: Callable[..., nn.Module] = MappingNetwork
    conv: Callable[..., nn.Module] = EqualizedConv
    activation: str = "lrelu"
    epilogue_activation: str = "lrelu"
    taps: Any = (1, 3, 3, 1)
    clamp: float | None = None
    group_size: int | None = 4
    group_channels: int = 1
    dtype: Any = None
    narrow: int = 4
    lanes: int = 0

    def setup(self) -> None:
        check_architecture(self.architecture, "config.model.d_architecture")
        skip = self.architecture == "skip"
        sizes = resolutions(self.resolution)
        lanes = self.lanes if self.conv is EqualizedConv else 0
        pixels = dict(zip(sizes, side_by_side([self._channels(size) for size in sizes], lanes)))
        blocks = []
        for size in reversed(sizes[1:]):
            block = DiscriminatorBlock(
                hidden=self._channels(size),
                from_rgb=skip or size == self.resolution,
                residual=self.architecture == "resnet",
                skip=skip,
                clamp=self.clamp,
                taps=self.taps,
                pixels=pixels[size],
                name=f"b{size}",
                **self._own(size),
            )
            blocks.append(block)
        self.blocks = blocks
        width = self._channels(FIRST) if self.cmap_dim is None else self.cmap_dim
        if self.conditions:
            self.mapping = self.mapping_network(
                latent_dim=0, classes=self.conditions, w_dim=width, w_avg_beta=None
            )
        self.epilogue = DiscriminatorEpilogue(
            self._channels(FIRST),
            width if self.conditions else 1,
            skip,
            self.epilogue_activation,
            self.group_size,
            self.group_channels,
            self.clamp,
            name="b4",
        )

    @property
    def conditions(self) -> int:
        """Entries of what is projected on; 0: nothing is."""
        return self.classes

    def _channels(self, size: int) -> int:
        return channels_at(size, self.channel_base, self.channel_max)

    def _own(self, size: int) -> dict[str, Any]:
        """Fields of the block of a resolution."""
        dtype = dtype_at(size, self.resolution, self.dtype, self.narrow)
        conv = functools.partial(self.conv, activation=self.activation, dtype=dtype)
        return {"features": self._channels(size // 2), "conv": conv}

    def __call__(self, images: Float[Array, "n h w c"], labels: Labels = None) -> Float[Array, "n"]:
        """Logits: the higher, the more real.

        Args:
            images: in [-1, 1].
            labels: classes, or weights of classes.
        """
        self._check(images.shape[1:])
        return self._verdict(*self._through(self.blocks, None, images), labels)

    def _check(self, size: tuple[int, ...]) -> None:
        wanted = (self.resolution, self.resolution, self.image_channels)
        if size != wanted:
            raise ValueError(
                f"images are {size}, the discriminator wants {wanted}; set config.data.resolution"
                " and config.data.channels to the data's"
            )

    def _through(
        self,
        blocks: Sequence[DiscriminatorBlock],
        x: Array | None,
        image: Array | None,
        *given: Array,
    ) -> tuple[Array, Array | None]:
        """Features and image after some blocks, which are given the rest."""
        pixels = 1
        for block in blocks:
            if x is not None and pixels == 1:
                x = fold(x, block.pixels)
            pixels = block.pixels
            x, image = block(x, image, *given)
        assert x is not None, "the first block sees the image"
        return unfold(x, max(pixels // 2, 1)), image

    def _verdict(self, x: Array, image: Array | None, labels: Labels) -> Float[Array, "n"]:
        """Logits from the features at 4x4."""
        x = self.epilogue(x, image)
        if not self.conditions:
            return x[:, 0]
        projection = self.mapping(None, labels)
        return jnp.sum(x * projection, axis=-1) / math.sqrt(projection.shape[-1])


def channels_at(resolution: int, base: int, most: int) -> int:
    """Channels of the layers at a resolution."""
    return min(base // resolution, most)


def dtype_at(resolution: int, largest: int, dtype: Any, narrow: int) -> Any:
    """The computation's dtype at a resolution: `dtype` at the `narrow` highest, never at 4x4."""
    lowest = max(2 * largest // 2**narrow, 2 * FIRST)
    return dtype if resolution >= lowest else None


def check_architecture(name: str, field: str) -> None:
    """ValueError for a name that is not in `ARCHITECTURES`; a config says it in `field`."""
    if name not in ARCHITECTURES:
        raise ValueError(f"{field}={name!r}; set one of {ARCHITECTURES}")


def example_inputs(module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments (shapes only) and keyword arguments for `module.init` and `init_on_host`."""
    labels = (jax.ShapeDtypeStruct((1,), jnp.int32),) if getattr(module, "classes", 0) else ()
    if isinstance(module, Generator | MappingNetwork):
        return (jax.ShapeDtypeStruct((1, module.latent_dim), jnp.float32), *labels), {}
    if isinstance(module, Discriminator):
        size = (1, module.resolution, module.resolution, module.image_channels)
        return (jax.ShapeDtypeStruct(size, jnp.float32), *labels), {}
    raise ValueError(f"{type(module).__name__} is no network of StyleGAN2")
