"""I3D (inflated Inception-v1, "Quo Vadis", 2017) for Kinetics-400: the network of FVD.

Two PyTorch ports are in use, the same up to the epsilon of batch normalisation and the names:

- kinetics_i3d_pytorch (eps 1e-3, as in TensorFlow): what StyleGAN-V's TorchScript detector was made
  of. That detector scales to [-1, 1] and resizes to 224x224 itself.
- pytorch_i3d of VideoGPT and DIGAN (eps 1e-5): the shorter side becomes 224, the middle is cut out.

FVD's features are the 400 logits. Modules are named as in the second port.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from ganjax.interop.entries import Entry, Path
from ganjax.pretrained.blocks import HIGHEST, ConvNormRelu, entries_of
from ganjax.pretrained.network import Kind, Shapes, State
from ganjax.pretrained.resize import half_pixel, resize

SIZE = 224
FEATURES = ("logits", "pool", "probabilities")

# Output channels: 1x1; 1x1 then 3x3x3; 1x1 then 3x3x3; pool then 1x1.
BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# In front of a block: name, window and strides over (t, h, w).
POOLS = {
    "Mixed_3b": ("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ("MaxPool3d_4a_3x3", (3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2)),
}

Clips = Num[Array, "n t h w 3"]


def prepare_cropped(clips: Clips) -> Float[Array, "n t 224 224 3"]:
    """RGB in 0..255: the shorter side to 224 (the longer rounded up), the middle, [-1, 1]."""
    height, width = clips.shape[2:4]
    scale = SIZE / min(height, width)
    size = (math.ceil(height * scale), math.ceil(width * scale))
    if height < width:
        size = (SIZE, size[1])
    else:
        size = (size[0], SIZE)
    clips = resize(_unit(clips), size, half_pixel)
    top, left = ((length - SIZE) // 2 for length in size)
    return (clips[:, :, top : top + SIZE, left : left + SIZE] - 0.5) * 2


def prepare_squeezed(clips: Clips) -> Float[Array, "n t 224 224 3"]:
    """RGB in 0..255 in [-1, 1] at 224x224, whatever the aspect.

    NOTE: StyleGAN-V's detector does this inside of a TorchScript that could not be inspected. That
    it divides by 255 is its author's word; bilinear with half-pixel centres is assumed (between
    frames nothing is interpolated, since their number stays).
    """
    return resize(_unit(clips), (SIZE, SIZE), half_pixel) * 2 - 1


def _unit(clips: Clips) -> Float[Array, "n t h w 3"]:
    dtype = clips.dtype if jnp.issubdtype(clips.dtype, jnp.floating) else jnp.float32
    return clips.astype(dtype) / 255


class I3D(nn.Module):
    """Features of clips of at least 9 frames, prepared.

    "logits" are the mean over what time is left of the class scores, "pool" is the mean over time
    of what they are computed from (1024 channels). Pools are sown among the intermediates.

    Attributes:
        eps: of batch normalisation: 1e-3 or 1e-5, by the port (see the module).
    """

    eps: float = 1e-3
    classes: int = 400

    @nn.compact
    def __call__(self, x: Float[Array, "n t 224 224 3"]) -> dict[str, Float[Array, "n _"]]:
        x = _unit3d(64, 7, self.eps, "Conv3d_1a_7x7", stride=2)(x)
        x = self._pool("MaxPool3d_2a_3x3", x, (1, 3, 3), (1, 2, 2))
        x = _unit3d(64, 1, self.eps, "Conv3d_2b_1x1")(x)
        x = _unit3d(192, 3, self.eps, "Conv3d_2c_3x3")(x)
        for name, channels in BLOCKS.items():
            if name in POOLS:
                x = self._pool(POOLS[name][0], x, *POOLS[name][1:])
            x = Mixed(channels, self.eps, name=name)(x)
        if x.shape[1] < 2:
            raise ValueError(
                "I3D needs clips of at least 9 frames: 2 must be left after its strides in time,"
                f" but {x.shape[1]} is; set the clip's number of frames"
            )
        x = nn.avg_pool(x, (2, *x.shape[2:4]))
        self.sow("intermediates", "avg_pool", x)
        scores = nn.Conv(self.classes, (1, 1, 1), precision=HIGHEST, name="logits")(x)
        logits = scores.mean((1, 2, 3))
        return {
            "logits": logits,
            "pool": x.mean((1, 2, 3)),
            "probabilities": nn.softmax(logits),
        }

    def _pool(
        self, name: str, x: Array, window: tuple[int, ...], strides: tuple[int, ...]
    ) -> Array:
        # After a ReLU, "SAME" padding that never wins equals the ports' padding by zeros.
        x = nn.max_pool(x, window, strides, "SAME")
        self.sow("intermediates", name, x)
        return x


class Mixed(nn.Module):
    """Four branches side by side; `channels` as in `BLOCKS`."""

    channels: tuple[int, ...]
    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t h w o"]:
        one, two_a, two_b, three_a, three_b, pooled = self.channels
        pool = nn.max_pool(x, (3, 3, 3), (1, 1, 1), "SAME")
        branches = (
            _unit3d(one, 1, self.eps, "b0")(x),
            _unit3d(two_b, 3, self.eps, "b1b")(_unit3d(two_a, 1, self.eps, "b1a")(x)),
            _unit3d(three_b, 3, self.eps, "b2b")(_unit3d(three_a, 1, self.eps, "b2a")(x)),
            _unit3d(pooled, 1, self.eps, "b3b")(pool),
        )
        return jnp.concatenate(branches, axis=-1)


def _unit3d(features: int, kernel: int, eps: float, name: str, stride: int = 1) -> ConvNormRelu:
    return ConvNormRelu(features, (kernel,) * 3, (stride,) * 3, "SAME", eps, name=name)


# Official names

BRANCHES = {
    "b0": "branch_0",
    "b1a": "branch_1.0",
    "b1b": "branch_1.1",
    "b2a": "branch_2.0",
    "b2b": "branch_2.1",
    "b3b": "branch_3.1",
}


def videogpt_name(path: Path) -> tuple[str, ...]:
    """`Mixed_3b.b1a.conv3d.weight`, `logits.conv3d.bias`."""
    if path[0] == "logits":
        return (f"logits.conv3d.{path[-1]}",)
    return (".".join("conv3d" if part == "conv" else part for part in path),)


def hassony_name(path: Path) -> tuple[str, ...]:
    """`mixed_3b.branch_1.0.conv3d.weight`, `conv3d_0c_1x1.conv3d.bias`."""
    if path[0] == "logits":
        return (f"conv3d_0c_1x1.conv3d.{path[-1]}",)
    block, *branch, layer, leaf = path
    layer = {"conv": "conv3d", "bn": "batch3d"}[layer]
    parts = (block[0].lower() + block[1:], *(BRANCHES[name] for name in branch), layer, leaf)
    return (".".join(parts),)


def entries(shapes: Shapes, state: State) -> tuple[Entry, ...]:
    """By either port's names, whichever the state dict has."""
    lower = any(name.startswith("conv3d_1a_7x7.") for name in state)
    return entries_of(shapes, hassony_name if lower else videogpt_name)


def _kind(eps: float, prepare) -> Kind:
    return Kind(
        module=I3D(eps=eps),
        prepare=prepare,
        features=FEATURES,
        examples=(jax.ShapeDtypeStruct((1, 16, SIZE, SIZE, 3), np.float32),),
        entries=entries,
    )


STYLEGANV = _kind(1e-3, prepare_squeezed)
HASSONY = _kind(1e-3, prepare_cropped)
VIDEOGPT = _kind(1e-5, prepare_cropped)
