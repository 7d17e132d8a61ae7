"""Generator and discriminators of StyleGAN-V (Skorokhodov et al., 2022).

StyleGAN2's, with motion codes joined to the generator's constant, and frames joined half way
through the discriminator. What it is told of the distances between frames: the released code
projects on them (`Discriminator`), the paper also modulates convolutions (`HyperDiscriminator`,
section 3.2 and figure 6). Modules are named as in the official PyTorch code.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.families.stylegan2.blocks import FIRST, Noise, SynthesisLayer
from ganjax.families.stylegan2.networks import Discriminator as StyleGAN2Discriminator
from ganjax.families.stylegan2.networks import Generator as StyleGAN2Generator
from ganjax.families.stylegan2.networks import Labels, Truncation, dtype_at, resolutions
from ganjax.families.stylegan2.networks import example_inputs as stylegan2_inputs
from ganjax.families.styleganv.motion import MotionEncoder, as_weights
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.initializers import Normal
from ganjax.layers.linear import Embed

# What synthesis takes: the w of each layer, and what is joined to the constant.
Joined = tuple[Float[Array, "n num_ws d"], Float[Array, "n e"] | None]


def to_constant(ws: Float[Array, "n num_ws w"], codes: Float[Array, "n e"]) -> Joined:
    """Motion codes are channels of the constant: StyleGAN-V's own way."""
    return ws, codes


def to_styles(ws: Float[Array, "n num_ws w"], codes: Float[Array, "n e"]) -> Joined:
    """Motion codes are further entries of w, as of MoCoGAN with StyleGAN2's backbone."""
    codes = jnp.broadcast_to(codes[:, None], (*ws.shape[:2], codes.shape[-1]))
    return jnp.concatenate([ws, codes], axis=-1), None


def added(ws: Float[Array, "n num_ws w"], codes: Float[Array, "n w"]) -> Joined:
    """Motion codes are added to w, which has as many entries."""
    return ws + codes[:, None], None


class Generator(StyleGAN2Generator):
    """StyleGAN2's generator, whose attributes it has, of frames at any times.

    Attributes:
        motion: makes the encoder of motion, called with `classes`.
        join: how motion codes enter the synthesis.
    """

    motion: Callable[..., MotionEncoder] = MotionEncoder
    join: Callable[[Array, Array], Joined] = to_constant

    def setup(self) -> None:
        super().setup()
        self.motion_encoder = self.motion(classes=self.classes)

    @property
    def encoder(self) -> MotionEncoder:
        """The encoder of motion, to be asked for sizes."""
        return self.motion(classes=self.classes, parent=None)

    def __call__(  # type: ignore[override]
        self,
        z: Float[Array, "n latent_dim"],
        times: Float[Array, "n t"],
        motion: Float[Array, "n codes d"],
        labels: Labels = None,
        *,
        first: Int[Array, "n"] | None = None,
        noise: Noise = "const",
        truncation: Truncation = 1.0,
        cutoff: int | None = None,
    ) -> Float[Array, "n t h w c"]:
        """Frames, float32; about [-1, 1], not clipped.

        Args:
            times, motion, first: as of `MotionEncoder`, the noise being `motion`.
            labels, noise, truncation, cutoff: as of StyleGAN2's.
        """
        ws = self.styles(z, labels, truncation, cutoff)
        return self.synthesize(ws, self.moves(times, motion, first, labels), noise)

    def moves(
        self,
        times: Float[Array, "n t"],
        motion: Float[Array, "n codes d"],
        first: Int[Array, "n"] | None = None,
        labels: Labels = None,
    ) -> Float[Array, "n t e"]:
        """Motion codes: see `MotionEncoder`."""
        return self.motion_encoder(times, motion, first, labels)

    def synthesize(  # type: ignore[override]
        self,
        ws: Float[Array, "n num_ws w_dim"],
        codes: Float[Array, "n t e"],
        noise: Noise = "const",
    ) -> Float[Array, "n t h w c"]:
        """Frames from the w of each layer and motion codes."""
        n, frames, size = codes.shape
        ws, joined = self.join(jnp.repeat(ws, frames, axis=0), codes.reshape(-1, size))
        images = self.synthesis(ws, noise, joined)
        return images.reshape(n, frames, *images.shape[1:])


def waves(
    differences: Float[Array, "n m"], longest: int, skip: int = 0
) -> Float[Array, "n m features"]:
    """Sines and cosines of differences of times, of periods 2, 4, ... up to twice the longest.

    Args:
        longest: video, in frames.
        skip: so many of the shortest periods are left out.
    """
    count = math.ceil(math.log2(longest))
    coefficients = jnp.pi * 2.0 ** jnp.arange(-count, -skip, dtype=differences.dtype)
    angle = differences[..., None] * coefficients
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class LearnedDifferences(nn.Module):
    """A learned vector for each whole distance, and waves: the released code's.

    Attributes:
        longest: video, in frames; distances are below.
        features: of the learned vectors.
        skip: as of `waves`.
    """

    longest: int = 1024
    features: int = 256
    skip: int = 0

    @property
    def size(self) -> int:
        """Entries for one distance."""
        return self.features + 2 * (math.ceil(math.log2(self.longest)) - self.skip)

    @nn.compact
    def __call__(self, differences: Float[Array, "n m"]) -> Float[Array, "n m size"]:
        embed = Embed(self.longest, self.features, embedding_init=Normal(), name="const_embed")
        nearest = jnp.round(differences).astype(jnp.int32)  # halves to the even number
        learned = embed(nearest.reshape(-1)).reshape(*differences.shape, self.features)
        more = waves(differences, self.longest, self.skip).astype(learned.dtype)
        return jnp.concatenate([learned, more], axis=-1)


class EncodedDifferences(nn.Module):
    """Waves through two dense layers: the paper's (section 3.2).

    Attributes:
        longest: as of `waves`.
        size: entries for one distance.
    """

    longest: int = 1024
    size: int = 256

    @nn.compact
    def __call__(self, differences: Float[Array, "n m"]) -> Float[Array, "n m size"]:
        x = waves(differences, self.longest)
        x = EqualizedDense(self.size, "lrelu", name="fc0")(x)
        return EqualizedDense(self.size, "lrelu", name="fc1")(x)


def between_neighbours(times: Float[Array, "n t"]) -> Float[Array, "n m"]:
    """All distances between frames that follow one another."""
    return times[:, 1:] - times[:, :-1]


def between_the_first(times: Float[Array, "n t"]) -> Float[Array, "n m"]:
    """The distance between the first two frames, where all are the same."""
    return times[:, 1:2] - times[:, :1]


def told(condition: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """A condition as it is."""
    return condition


def blank(condition: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Zeros in a condition's place: how the paper's table 2 leaves one out."""
    return jnp.zeros_like(condition)


class Discriminator(StyleGAN2Discriminator):
    """StyleGAN2's discriminator, whose attributes it has, of a few frames of a video at once.

    Blocks down to `join_resolution` see each frame by itself, those below see all of them as
    channels.

    Attributes:
        frames: of a clip.
        join_resolution: of the features that are joined, in pixels.
        share: of a frame's channels there, one of so many is kept.
        differences: from times [n, frames] to the distances that it is told.
        encoder: makes what encodes them.
        projected: from classes and encoded distances to what is projected on: `told` or `blank`.
    """

    frames: int = 3
    join_resolution: int = 16
    share: int = 2
    differences: Callable[[Array], Array] = between_neighbours
    encoder: Callable[..., Any] = LearnedDifferences
    projected: Callable[[Array], Array] = told

    def setup(self) -> None:
        if self.join_resolution not in resolutions(self.resolution)[1:-1]:
            raise ValueError(
                f"join_resolution={self.join_resolution}: frames of {self.resolution} pixels are"
                f" joined at a power of two from {2 * FIRST} to {self.resolution // 2}; set"
                " model.join_resolution to one"
            )
        if self.architecture == "skip":
            raise ValueError(
                "architecture='skip' shows images to blocks that see joined frames; set resnet or"
                " orig"
            )
        super().setup()
        if self.told_dim:
            self.time_encoder = self.encoder()

    @property
    def told_dim(self) -> int:
        """Entries of what it is told of times."""
        told = jax.eval_shape(self.differences, jax.ShapeDtypeStruct((1, self.frames), jnp.float32))
        return told.shape[1] and told.shape[1] * self.encoder(parent=None).size

    @property
    def conditions(self) -> int:
        return self.classes + self.told_dim

    def _own(self, size: int) -> dict[str, Any]:
        own = super()._own(size)
        if size == 2 * self.join_resolution:
            own["features"] //= self.share
        return own

    def __call__(  # type: ignore[override]
        self,
        clips: Float[Array, "n t h w c"],
        times: Float[Array, "n t"],
        labels: Labels = None,
    ) -> Float[Array, "n"]:
        """Logits: the higher, the more real.

        Args:
            clips: in [-1, 1].
            times: of their frames.
            labels: classes, or weights of classes.
        """
        n, frames = clips.shape[:2]
        if frames != self.frames:
            raise ValueError(
                f"clips of {frames} frames, the discriminator wants {self.frames}; set"
                " data.clip.frames to them"
            )
        self._check(clips.shape[2:])
        parts = []
        if self.classes:
            parts.append(as_weights(labels, self.classes).astype(clips.dtype))
        if self.told_dim:
            parts.append(self.time_encoder(self.differences(times)).reshape(n, -1))
        style = self._style(parts[-1]) if parts else ()
        above = [block.name for block in self.blocks].index(f"b{self.join_resolution}")
        x, image = self._through(
            self.blocks[:above],
            None,
            clips.reshape(-1, *clips.shape[2:]),
            *(jnp.repeat(w, frames, axis=0) for w in style),
        )
        x = x.reshape(n, frames, *x.shape[1:]).transpose(0, 2, 3, 1, 4)
        x = x.reshape(*x.shape[:3], -1)  # all channels of the first frame first
        x, image = self._through(self.blocks[above:], x, image, *style)
        condition = self.projected(jnp.concatenate(parts, axis=-1)) if parts else None
        return self._verdict(x, image, condition)

    def _style(self, encoded: Float[Array, "n d"]) -> tuple[Array, ...]:
        """What the blocks are given beside features: nothing."""
        del encoded
        return ()


class HyperDiscriminator(Discriminator):
    """The paper's: distances also modulate the first convolution of each block (figure 6).

    Attributes:
        w_dim: entries of what modulates.
        modulated: from it to what does so: `told` or `blank`.
    """

    encoder: Callable[..., Any] = EncodedDifferences
    w_dim: int = 512
    modulated: Callable[[Array], Array] = told

    def setup(self) -> None:
        super().setup()
        if not self.told_dim:
            raise ValueError("one frame has no distances to modulate by; set data.clip.frames=2")
        self.modulation = self.mapping_network(
            latent_dim=0, classes=self.told_dim, w_dim=self.w_dim, w_avg_beta=None
        )

    def _own(self, size: int) -> dict[str, Any]:
        first = functools.partial(
            SynthesisLayer,
            resolution=size,
            use_noise=False,
            activation=self.activation,
            dtype=dtype_at(size, self.resolution, self.dtype, self.narrow),
        )
        return super()._own(size) | {"first": first}

    def _style(self, encoded: Float[Array, "n d"]) -> tuple[Array, ...]:
        return (self.modulated(self.modulation(None, encoded)),)


def example_inputs(module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments (shapes only) and keyword arguments for `module.init` and `init_on_host`."""

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    classes = getattr(module, "classes", 0)
    labels = (jax.ShapeDtypeStruct((1,), jnp.int32),) if classes else ()
    if isinstance(module, Generator):
        encoder = module.encoder
        noise = shape(1, encoder.window(0, 0), encoder.noise_dim)
        return (shape(1, module.latent_dim), shape(1, 1), noise, *labels), {}
    if isinstance(module, MotionEncoder):
        return (shape(1, 1), shape(1, module.window(0, 0), module.noise_dim), None, *labels), {}
    if isinstance(module, Discriminator):
        size = (module.resolution, module.resolution, module.image_channels)
        return (shape(1, module.frames, *size), shape(1, module.frames), *labels), {}
    return stylegan2_inputs(module)
