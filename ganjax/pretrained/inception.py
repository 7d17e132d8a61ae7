"""InceptionV3 of the TensorFlow graph of 2015-12-05: the network of FID, KID and Inception Score.

It is not the InceptionV3 of torchvision or Keras: 1008 classes, average pools that leave padding
out, a maximum pool in the last block, images resized by TensorFlow 1's rule and scaled by
(x - 128) / 128. Modules are named as in the PyTorch ports (pytorch-fid, torch-fidelity).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ganjax.interop.entries import Entry, Path
from ganjax.pretrained.blocks import HIGHEST, ConvNormRelu, entries_of, entry_paths, moved
from ganjax.pretrained.network import Kind, Shapes, State, dotted
from ganjax.pretrained.resize import resize, tf1

SIZE = 299
CLASSES = 1008
SPATIAL_CHANNELS = 7  # of the spatial feature: 7 x 17 x 17 = 2023 numbers, about as many as 2048
FEATURES = ("64", "192", "768", "2048", "logits_unbiased", "logits", "spatial")

Features = dict[str, Float[Array, "n _"]]


def prepare(
    images: UInt8[Array, "n h w 3"] | Float[Array, "n h w 3"],
) -> Float[Array, "n 299 299 3"]:
    """RGB in 0..255, integers or floating point, of any size, as the network takes it."""
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else jnp.float32
    return (resize(images.astype(dtype), (SIZE, SIZE), tf1) - 128) / 128


class InceptionV3(nn.Module):
    """Features of prepared images.

    "64", "192" and "768" are means over space after the first pool, the second pool and Mixed_6e;
    "2048" is FID's; "logits_unbiased" leaves the bias out (the Inception Score's input);
    "spatial" is sFID's: the first 7 channels of Mixed_6d (TensorFlow's mixed_6/conv), flattened in
    the order h, w, c. The outputs of the two pools are sown among the intermediates.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "n 299 299 3"]) -> Features:
        features = {}
        x = _conv(32, (3, 3), "Conv2d_1a_3x3", stride=2)(x)
        x = _conv(32, (3, 3), "Conv2d_2a_3x3")(x)
        x = _conv(64, (3, 3), "Conv2d_2b_3x3", padded=True)(x)
        x = nn.max_pool(x, (3, 3), (2, 2))
        self.sow("intermediates", "MaxPool_1", x)
        features["64"] = x.mean((1, 2))
        x = _conv(80, (1, 1), "Conv2d_3b_1x1")(x)
        x = _conv(192, (3, 3), "Conv2d_4a_3x3")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))
        self.sow("intermediates", "MaxPool_2", x)
        features["192"] = x.mean((1, 2))
        blocks: Sequence[nn.Module] = (
            BlockA(32, name="Mixed_5b"),
            BlockA(64, name="Mixed_5c"),
            BlockA(64, name="Mixed_5d"),
            BlockB(name="Mixed_6a"),
            BlockC(128, name="Mixed_6b"),
            BlockC(160, name="Mixed_6c"),
            BlockC(160, name="Mixed_6d"),
            BlockC(192, name="Mixed_6e"),
            BlockD(name="Mixed_7a"),
            BlockE(average_pool, name="Mixed_7b"),
            BlockE(maximum_pool, name="Mixed_7c"),
        )
        for block in blocks:
            x = block(x)
            if block.name == "Mixed_6d":
                features["spatial"] = x[..., :SPATIAL_CHANNELS].reshape(len(x), -1)
            elif block.name == "Mixed_6e":
                features["768"] = x.mean((1, 2))
        features["2048"] = x = x.mean((1, 2))
        features["logits_unbiased"], features["logits"] = Head(CLASSES, name="fc")(x)
        return features


class Head(nn.Module):
    """The last layer: its product, and that with the bias added."""

    classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "n c"]
    ) -> tuple[Float[Array, "n classes"], Float[Array, "n classes"]]:
        shape = (x.shape[-1], self.classes)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        unbiased = jnp.dot(x, kernel, precision=HIGHEST)
        return unbiased, unbiased + bias


def _conv(
    features: int, kernel_size: tuple[int, int], name: str, stride: int = 1, padded: bool = False
) -> ConvNormRelu:
    padding = [(size // 2, size // 2) if padded else (0, 0) for size in kernel_size]
    return ConvNormRelu(features, kernel_size, (stride, stride), padding, name=name)


def _chain(x: Array, *layers: nn.Module) -> Array:
    for layer in layers:
        x = layer(x)
    return x


def average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """3x3 means over what lies inside of the picture."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def maximum_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """3x3 maxima."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


class BlockA(nn.Module):
    """Mixed_5b to Mixed_5d, [n, 35, 35, c] to [n, 35, 35, 224 + pooled]."""

    pooled: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w o"]:
        branches = (
            _conv(64, (1, 1), "branch1x1")(x),
            _chain(
                x,
                _conv(48, (1, 1), "branch5x5_1"),
                _conv(64, (5, 5), "branch5x5_2", padded=True),
            ),
            _chain(
                x,
                _conv(64, (1, 1), "branch3x3dbl_1"),
                _conv(96, (3, 3), "branch3x3dbl_2", padded=True),
                _conv(96, (3, 3), "branch3x3dbl_3", padded=True),
            ),
            _conv(self.pooled, (1, 1), "branch_pool")(average_pool(x)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockB(nn.Module):
    """Mixed_6a, [n, 35, 35, c] to [n, 17, 17, c + 480]."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 o"]:
        branches = (
            _conv(384, (3, 3), "branch3x3", stride=2)(x),
            _chain(
                x,
                _conv(64, (1, 1), "branch3x3dbl_1"),
                _conv(96, (3, 3), "branch3x3dbl_2", padded=True),
                _conv(96, (3, 3), "branch3x3dbl_3", stride=2),
            ),
            nn.max_pool(x, (3, 3), (2, 2)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockC(nn.Module):
    """Mixed_6b to Mixed_6e, [n, 17, 17, c] to [n, 17, 17, 768]; `inner` channels between."""

    inner: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w 768"]:
        wide, tall = (1, 7), (7, 1)
        branches = (
            _conv(192, (1, 1), "branch1x1")(x),
            _chain(
                x,
                _conv(self.inner, (1, 1), "branch7x7_1"),
                _conv(self.inner, wide, "branch7x7_2", padded=True),
                _conv(192, tall, "branch7x7_3", padded=True),
            ),
            _chain(
                x,
                _conv(self.inner, (1, 1), "branch7x7dbl_1"),
                _conv(self.inner, tall, "branch7x7dbl_2", padded=True),
                _conv(self.inner, wide, "branch7x7dbl_3", padded=True),
                _conv(self.inner, tall, "branch7x7dbl_4", padded=True),
                _conv(192, wide, "branch7x7dbl_5", padded=True),
            ),
            _conv(192, (1, 1), "branch_pool")(average_pool(x)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockD(nn.Module):
    """Mixed_7a, [n, 17, 17, c] to [n, 8, 8, c + 512]."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 o"]:
        branches = (
            _chain(
                x,
                _conv(192, (1, 1), "branch3x3_1"),
                _conv(320, (3, 3), "branch3x3_2", stride=2),
            ),
            _chain(
                x,
                _conv(192, (1, 1), "branch7x7x3_1"),
                _conv(192, (1, 7), "branch7x7x3_2", padded=True),
                _conv(192, (7, 1), "branch7x7x3_3", padded=True),
                _conv(192, (3, 3), "branch7x7x3_4", stride=2),
            ),
            nn.max_pool(x, (3, 3), (2, 2)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockE(nn.Module):
    """Mixed_7b and Mixed_7c, [n, 8, 8, c] to [n, 8, 8, 2048]; the two differ in `pool`."""

    pool: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w 2048"]:
        def fork(x: Array, name: str) -> list[Array]:
            return [
                _conv(384, (1, 3), f"{name}a", padded=True)(x),
                _conv(384, (3, 1), f"{name}b", padded=True)(x),
            ]

        once = _conv(384, (1, 1), "branch3x3_1")(x)
        twice = _chain(
            x,
            _conv(448, (1, 1), "branch3x3dbl_1"),
            _conv(384, (3, 3), "branch3x3dbl_2", padded=True),
        )
        branches = (
            _conv(320, (1, 1), "branch1x1")(x),
            *fork(once, "branch3x3_2"),
            *fork(twice, "branch3x3dbl_3"),
            _conv(192, (1, 1), "branch_pool")(self.pool(x)),
        )
        return jnp.concatenate(branches, axis=-1)


# Official names

STEM = {
    "Conv2d_1a_3x3": "conv",
    "Conv2d_2a_3x3": "conv_1",
    "Conv2d_2b_3x3": "conv_2",
    "Conv2d_3b_1x1": "conv_3",
    "Conv2d_4a_3x3": "conv_4",
}
MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
# TensorFlow's scopes of the branches of a kind of block; a number after "_" counts from 1.
TOWERS: dict[str, dict[str, str]] = {
    "5": {"branch1x1": "", "branch5x5": "tower", "branch3x3dbl": "tower_1"},
    "6a": {"branch3x3": "", "branch3x3dbl": "tower"},
    "6": {"branch1x1": "", "branch7x7": "tower", "branch7x7dbl": "tower_1"},
    "7a": {"branch3x3": "tower", "branch7x7x3": "tower_1"},
    "7": {"branch1x1": "", "branch3x3": "tower", "branch3x3dbl": "tower_1"},
}
LEAVES = {
    ("conv", "kernel"): "conv2d_params",
    ("bn", "scale"): "batchnorm/gamma",
    ("bn", "bias"): "batchnorm/beta",
    ("bn", "mean"): "batchnorm/moving_mean",
    ("bn", "var"): "batchnorm/moving_variance",
    ("fc", "kernel"): "weights",
    ("fc", "bias"): "biases",
}


def tensorflow_name(path: Path) -> str:
    """`mixed_3/tower/conv_1/batchnorm/beta` for Mixed_6a/branch3x3dbl_2/bn/bias."""
    *modules, layer, leaf = path
    last = LEAVES[layer, leaf]
    if layer == "fc":
        return f"softmax/{last}"
    if len(modules) == 1:
        return f"{STEM[modules[0]]}/{last}"
    block, branch = modules
    number = MIXED.index(block.removeprefix("Mixed_"))
    scope = f"mixed_{number}" if number else "mixed"
    return "/".join((scope, *_tower(block.removeprefix("Mixed_"), branch), last))


def _tower(block: str, branch: str) -> list[str]:
    towers = TOWERS.get(block) or TOWERS[block[0]]
    if branch == "branch_pool":
        return ["tower_2", "conv"]
    name, _, place = branch.partition("_")
    scopes = [towers[name]] if towers[name] else []
    if place[-1:] in ("a", "b"):
        # The ends of a fork in the last two blocks.
        return [*scopes, "mixed", "conv" if place.endswith("a") else "conv_1"]
    index = int(place or 1) - 1
    return [*scopes, f"conv_{index}" if index else "conv"]


def entries(shapes: Shapes, state: State) -> tuple[Entry, ...]:
    """By the names of the PyTorch ports or of the TensorFlow graph, whichever the file has."""
    if "conv/conv2d_params" not in state:
        return entries_of(shapes, dotted)
    return tuple(
        moved(path, (tensorflow_name(path[1:]),), None, shape)
        for path, shape in entry_paths(shapes)
    )


def drop_graph(state: State) -> State:
    """Of a graph's constants those that are weights; anything else as it is."""
    if "conv/conv2d_params" not in state:
        return state
    ends = tuple(LEAVES.values())
    return {name: array for name, array in state.items() if name.endswith(ends)}


KIND = Kind(
    module=InceptionV3(),
    prepare=prepare,
    features=FEATURES,
    examples=(jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32),),
    entries=entries,
    adapt=drop_graph,
)
