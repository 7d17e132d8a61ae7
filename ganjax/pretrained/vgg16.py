"""VGG16 ("Very Deep Convolutional Networks", 2014) for LPIPS and for precision and recall.

As NVIDIA's vgg16.pt is used by StyleGAN2-ADA and StyleGAN3: precision and recall take the 4096
activations of the second dense layer on images resized to 224x224 by TensorFlow 1's rule, path
length takes LPIPS distances at the images' own size. The calibrated distance is that of "The
Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), version 0.1.

NOTE: what vgg16.pt holds and does to its input is known from ports of it, not from the file itself,
which could not be had: layer names, scaling by ImageNet's mean and deviation, the resize.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from ganjax.interop.entries import Entry, Path
from ganjax.metrics.path_length import prepare as shrink
from ganjax.pretrained.blocks import HIGHEST, entries_of
from ganjax.pretrained.network import FeatureNetwork, Kind, Shapes, State
from ganjax.pretrained.resize import resize, tf1

SIZE = 224
MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
STD = (0.229, 0.224, 0.225)
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
FEATURES = ("fc2", "logits")
# LPIPS of pairs of images in [-1, 1], by what is looked at: all of them, or where faces are.
PAIRS: dict[str, Callable[[Array], Array]] = {
    "lpips": shrink,
    "lpips_faces": functools.partial(shrink, crop=True),
}
EPS = 1e-10


def normalise(images: Num[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """RGB in 0..255, integers or floating point, at its own size."""
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else jnp.float32
    images = images.astype(dtype) / 255
    return (images - jnp.asarray(MEAN, dtype)) / jnp.asarray(STD, dtype)


def prepare(images: Num[Array, "n h w 3"]) -> Float[Array, "n 224 224 3"]:
    """RGB in 0..255 of any size, resized by TensorFlow 1's rule, then `normalise`."""
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else jnp.float32
    return normalise(resize(images.astype(dtype), (SIZE, SIZE), tf1))


class Vgg16(nn.Module):
    """Features of prepared images: "fc2" (4096, after the ReLU) and "logits" (1000).

    `stages` and `distance` are LPIPS's part, for normalised images of any size from 16 up.
    """

    def setup(self) -> None:
        self.convolutions = [
            [
                nn.Conv(channels, (3, 3), precision=HIGHEST, name=f"conv{stage}_{index}")
                for index in range(1, count + 1)
            ]
            for stage, (channels, count) in enumerate(STAGES, start=1)
        ]
        self.dense = [
            nn.Dense(features, precision=HIGHEST, name=f"fc{index}")
            for index, features in enumerate((4096, 4096, 1000), start=1)
        ]
        self.lpips = [
            self.param(f"lpips{index}", nn.initializers.ones, (channels,))
            for index, (channels, _) in enumerate(STAGES)
        ]

    def __call__(self, x: Float[Array, "n 224 224 3"]) -> dict[str, Float[Array, "n _"]]:
        return self.head(self.stages(x)[-1])

    def head(self, x: Float[Array, "n 14 14 512"]) -> dict[str, Float[Array, "n _"]]:
        """The dense layers on the last stage."""
        x = nn.max_pool(x, (2, 2), (2, 2))
        # The dense layers count their inputs as [c, h, w].
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        first, second, third = self.dense
        fc2 = nn.relu(second(nn.relu(first(x))))
        return {"fc2": fc2, "logits": third(fc2)}

    def stages(self, x: Float[Array, "n h w 3"]) -> list[Float[Array, "n h2 w2 c"]]:
        """Activations in front of each of the five pools."""
        found: list[Array] = []
        for stage in self.convolutions:
            if found:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for convolution in stage:
                x = nn.relu(convolution(x))
            found.append(x)
        return found

    def distance(
        self, one: Float[Array, "n h w 3"], other: Float[Array, "n h w 3"]
    ) -> Float[Array, "n"]:
        """LPIPS between normalised images, pair by pair."""
        total = jnp.zeros(len(one), one.dtype)
        # Neighbours, so that both of a pair stay on their device.
        both = self.stages(jnp.stack((one, other), axis=1).reshape(-1, *one.shape[1:]))
        for activation, weight in zip(both, self.lpips):
            # A length of 0 means a ReLU at 0 in every channel, which lets no gradient through.
            length = jnp.sqrt(jnp.sum(jnp.square(activation), axis=-1, keepdims=True))
            unit = (activation / (length + EPS)).reshape(len(one), 2, *activation.shape[1:])
            change = jnp.square(unit[:, 0] - unit[:, 1])
            squares = jnp.dot(change, weight, precision=HIGHEST)
            total += jnp.mean(squares, axis=(1, 2))
        return total


class VggNetwork(FeatureNetwork):
    """VGG16 with weights: `network(images)` as any feature network, and `network.lpips(a, b)`."""

    def apply(
        self,
        variables: Mapping[str, Any],
        images: Array | Mapping[str, Array],
        features: Sequence[str] | None = None,
    ) -> dict[str, Array]:
        """As of any network; of pairs ("one", "other" in [-1, 1]) the features are `PAIRS`."""
        if not isinstance(images, Mapping):
            return super().apply(variables, images, features)
        assert isinstance(self.kind.module, Vgg16)
        found = {}
        for name in features or PAIRS:
            one, other = (PAIRS[name](images[end]) for end in ("one", "other"))
            found[name] = _apply_lpips(self.kind.module, variables, one, other)
        return found

    def lpips(
        self, one: Num[Array | np.ndarray, "n h w 3"], other: Num[Array | np.ndarray, "n h w 3"]
    ) -> Float[Array, "n"]:
        """LPIPS of RGB images in 0..255, pair by pair."""
        return _lpips(self.kind.module, self.variables, jnp.asarray(one), jnp.asarray(other))


def _apply_lpips(module: Vgg16, variables: Any, one: Array, other: Array) -> Array:
    found = module.apply(variables, normalise(one), normalise(other), method="distance")
    assert isinstance(found, jax.Array), "a distance is an array"
    return found


_lpips = jax.jit(_apply_lpips, static_argnums=0)


# Official names

# Of torchvision's convolutions, in order.
FEATURE_NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
DENSE_NUMBERS = {"fc1": 0, "fc2": 3, "fc3": 6}
CONVOLUTIONS = [
    f"conv{stage}_{index}"
    for stage, (_, count) in enumerate(STAGES, start=1)
    for index in range(1, count + 1)
]


def nvidia_name(path: Path) -> tuple[str, ...]:
    """`layers.conv1.weight` to `layers.conv13.bias`, `layers.fc1.weight`, `lpips0`."""
    layer, *leaf = path
    if layer in CONVOLUTIONS:
        layer = f"conv{CONVOLUTIONS.index(layer) + 1}"
    return (".".join(["layers", layer, *leaf]) if leaf else layer,)


def torchvision_name(path: Path) -> tuple[str, ...]:
    """`features.0.weight`, `classifier.6.bias` and, of LPIPS's own file, `lin0.model.1.weight`."""
    layer, *leaf = path
    if layer in CONVOLUTIONS:
        return (f"features.{FEATURE_NUMBERS[CONVOLUTIONS.index(layer)]}.{leaf[0]}",)
    if layer in DENSE_NUMBERS:
        return (f"classifier.{DENSE_NUMBERS[layer]}.{leaf[0]}",)
    return (f"lin{layer.removeprefix('lpips')}.model.1.weight",)


def entries(shapes: Shapes, state: State) -> tuple[Entry, ...]:
    """By torchvision's names or by NVIDIA's, whichever the state dict has."""
    torchvision = "features.0.weight" in state
    return entries_of(shapes, torchvision_name if torchvision else nvidia_name)


def flatten_lpips(state: State) -> State:
    """The state dict with LPIPS's weights, 1x1 convolutions, as vectors."""
    lpips = ("lpips", "lin")
    return {
        name: array.reshape(-1) if name.startswith(lpips) else array
        for name, array in state.items()
    }


KIND = Kind(
    module=Vgg16(),
    prepare=prepare,
    features=FEATURES,
    examples=(jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32),),
    entries=entries,
    adapt=flatten_lpips,
)
