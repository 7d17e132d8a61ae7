"""C3D fine-tuned on UCF-101, as TGAN, TGANv2 and StyleGAN-V compute the video Inception Score.

The network of "Learning Spatiotemporal Features with 3D Convolutional Networks" (2015) on 16 frames
of 112x112, behind TGANv2's preprocessing: BGR, scaled by 128, resized with aligned corners, minus
the mean clip of Sports-1M. Modules are named as in the Caffe model.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from ganjax.interop.entries import Entry, Path
from ganjax.pretrained.blocks import HIGHEST, entries_of
from ganjax.pretrained.network import Kind, Shapes, State
from ganjax.pretrained.resize import align_corners, resize

FRAMES = 16
SIZE = 112
CLASSES = 101
FEATURES = ("fc6", "fc7", "logits", "probabilities")

# Convolutions between two pools; the first pool leaves time alone.
STAGES = (
    (("conv1a", 64),),
    (("conv2a", 128),),
    (("conv3a", 256), ("conv3b", 256)),
    (("conv4a", 512), ("conv4b", 512)),
    (("conv5a", 512), ("conv5b", 512)),
)


def prepare(clips: Num[Array, "n t h w 3"]) -> Float[Array, "n 16 112 112 3"]:
    """RGB in 0..255, integers or floating point, of any size: BGR in -128..128 at 112x112.

    Raises:
        ValueError: another number of frames than 16.
    """
    if clips.shape[1] != FRAMES:
        raise ValueError(
            f"C3D takes clips of {FRAMES} frames, got {clips.shape[1]}; cut the clips to {FRAMES}"
        )
    dtype = clips.dtype if jnp.issubdtype(clips.dtype, jnp.floating) else jnp.float32
    return prepare_unit(clips.astype(dtype) / 127.5 - 1)


def prepare_unit(clips: Float[Array, "n 16 h w 3"]) -> Float[Array, "n 16 112 112 3"]:
    """The same for RGB in [-1, 1], as generators give it and TGANv2 takes it."""
    return resize(clips[..., ::-1] * 128, (SIZE, SIZE), align_corners)


class C3D(nn.Module):
    """Features of prepared clips.

    "fc6" and "fc7" (4096 each) follow a ReLU; "probabilities" are what the Inception Score takes.
    Pools are sown among the intermediates, and so is the clip after the mean ("pre").

    Variables: "params", and in "constants" the mean clip [16, 112, 112, 3] in BGR.
    """

    classes: int = CLASSES

    @nn.compact
    def __call__(self, x: Float[Array, "n 16 112 112 3"]) -> dict[str, Float[Array, "n _"]]:
        mean = self.variable("constants", "mean", jnp.zeros, (FRAMES, SIZE, SIZE, 3))
        x = x + (128 - mean.value)
        self.sow("intermediates", "pre", x)
        for index, stage in enumerate(STAGES, start=1):
            for name, features in stage:
                x = nn.relu(nn.Conv(features, (3, 3, 3), precision=HIGHEST, name=name)(x))
            window = (1 if index == 1 else 2, 2, 2)
            # 7x7 becomes 4x4: the last windows reach beyond the edge ("cover_all" in Chainer).
            x = nn.max_pool(x, window, window, "SAME")
            self.sow("intermediates", f"pool{index}", x)
        # The dense layers count their inputs as [c, t, h, w].
        x = x.transpose(0, 4, 1, 2, 3).reshape(len(x), -1)
        fc6 = nn.relu(nn.Dense(4096, precision=HIGHEST, name="fc6")(x))
        fc7 = nn.relu(nn.Dense(4096, precision=HIGHEST, name="fc7")(fc6))
        logits = nn.Dense(self.classes, precision=HIGHEST, name="fc8")(fc7)
        return {"fc6": fc6, "fc7": fc7, "logits": logits, "probabilities": nn.softmax(logits)}


# Official names


def dotted_name(path: Path) -> tuple[str, ...]:
    """`conv1a.weight`, `mean`."""
    return (".".join(path),)


def chainer_name(path: Path) -> tuple[str, ...]:
    """`conv1a/W`, `conv1a/b`, `mean`: TGANv2's NPZ files, network and mean taken together."""
    return ("/".join({"weight": "W", "bias": "b"}.get(part, part) for part in path),)


def entries(shapes: Shapes, state: State) -> tuple[Entry, ...]:
    """By Chainer's names or by PyTorch's, whichever the state dict has."""
    return entries_of(shapes, chainer_name if "conv1a/W" in state else dotted_name)


def cut_mean(state: State) -> dict[str, Any]:
    """The mean [3, 16, 128, 171] of the official file as ours [16, 112, 112, 3].

    NOTE: TGANv2 cuts both axes from 8, though the middle of 171 columns starts at 29.
    """
    state = dict(state)
    if "mean" in state:
        mean = np.asarray(state["mean"]).reshape(state["mean"].shape[-4:])
        if mean.shape != (3, FRAMES, SIZE, SIZE):
            mean = mean[:, :, 8 : 8 + SIZE, 8 : 8 + SIZE]
        state["mean"] = mean.transpose(1, 2, 3, 0)
    return state


KIND = Kind(
    module=C3D(),
    prepare=prepare,
    features=FEATURES,
    examples=(jax.ShapeDtypeStruct((1, FRAMES, SIZE, SIZE, 3), np.float32),),
    entries=entries,
    adapt=cut_mean,
)
