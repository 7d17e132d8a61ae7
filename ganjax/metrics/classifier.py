"""A small classifier of a small labelled set, trained on the spot.

For sets that no pretrained network knows: it tells whether samples show the class that they were
asked for, and its features are what a Frechet distance of such a set compares. Both are measures
within one set, resolution and seed; they are not to be compared with FID.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

FEATURES = 64
STEPS = 1200
BATCH = 64
LEARNING_RATE = 4e-3  # after a warm-up, without which it can get stuck at chance
WARM_UP = 0.15  # of the steps
SHIFT = 2  # pixels at 32x32 by which training images move, so that places are not learnt by heart
CHUNK = 256  # images looked at together


class Network(nn.Module):
    """Strided convolutions, what they see anywhere and on average, features, logits.

    Sides of any length from 8 pixels on. Pooling makes it blind to where a thing is, so that it
    learns small things at random places (`shapes`) as well as centred ones (`digits`).

    Attributes:
      classes: number of logits.
      channels: of the first convolution; they double at each of the two others.
    """

    classes: int
    channels: int = 16

    @nn.compact
    def __call__(
        self, images: UInt8[Array, "n h w c"]
    ) -> tuple[Float[Array, "n f"], Float[Array, "n k"]]:
        """Features and logits."""
        x = images.astype(jnp.float32) / 127.5 - 1
        for level in range(3):
            side = 3 if level else 5
            x = nn.Conv(self.channels << level, (side, side), strides=2)(x)
            x = nn.relu(nn.GroupNorm(num_groups=4)(x))
        # NOTE: not x.max(), whose gradient looks for x equal to it: where XLA rounds x otherwise
        # than before there is none, and the gradient is 0 / 0.
        largest = nn.max_pool(x, x.shape[1:3])[:, 0, 0]
        x = jnp.concatenate([largest, x.mean(axis=(1, 2))], axis=-1)
        features = nn.relu(nn.Dense(FEATURES)(x))
        return features, nn.Dense(self.classes)(features)


@dataclasses.dataclass
class Classifier:
    """A trained classifier.

    Attributes:
      network: the module.
      params: its parameters.
      shape: (height, width, channels) of the images that it knows.
      accuracy: share of the held-out fifth that it puts in the right class.
      held_out: how many images these are.
    """

    network: Network
    params: Mapping[str, Any]
    shape: tuple[int, ...]
    accuracy: float = float("nan")
    held_out: int = 0

    def __post_init__(self) -> None:
        self._apply = jax.jit(self.network.apply)

    def predict(self, images: UInt8[np.ndarray, "n h w c"]) -> Int[np.ndarray, "n"]:
        """The most likely class of each image."""
        return self._outputs(images)[1].argmax(axis=1)

    def features(self, images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n f"]:
        """What the last layer sees: float32 [n, 64], not negative."""
        return self._outputs(images)[0]

    def _outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"images of shape {images.shape[1:]} for a classifier of {self.shape}; bring them"
                " to its resolution and channels"
            )
        parts = [(np.zeros((0, FEATURES), np.float32), np.zeros((0, self.network.classes)))]
        for start in range(0, len(images), CHUNK):
            part = images[start : start + CHUNK]
            padded = np.zeros((CHUNK, *self.shape), np.uint8)
            padded[: len(part)] = part
            features, logits = self._apply({"params": self.params}, padded)
            parts.append((np.asarray(features)[: len(part)], np.asarray(logits)[: len(part)]))
        features, logits = zip(*parts)
        return np.concatenate(features), np.concatenate(logits)


def train_classifier(
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, "m"],
    classes: int,
    seed: int = 0,
    steps: int = STEPS,
) -> Classifier:
    """Trains on four fifths of the images, chosen by the seed, and is judged on the others.

    The same images, labels and seed give the same classifier on the same machine; another number
    of cores or other XLA flags round differently, which moves the accuracy by a few thousandths.

    Args:
      classes: labels are 0 .. classes - 1.
      seed: of the split, the weights, and the order and shifts of the batches.
      steps: batches of 64 images.

    Raises:
      ValueError: fewer than 10 images, not a label for each, or a label out of range.
    """
    if len(images) < 10 or len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images and {len(labels)} labels; a label for each of at least 10"
            " images is wanted"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} for {classes} classes; 0 to"
            f" {classes - 1} are expected, set classes={labels.max() + 1} or more"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    held_out, known = np.split(order, [len(images) // 5])
    network = Network(classes)
    params = jax.jit(network.init)(jax.random.key(seed), images[:1])["params"]
    schedule = optax.cosine_onecycle_schedule(steps, LEARNING_RATE, pct_start=WARM_UP)
    optimizer = optax.adam(schedule)
    state = optimizer.init(params)

    # NOTE: a Python loop; XLA runs convolutions inside of `scan` many times slower on a CPU.
    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            _, logits = network.apply({"params": params}, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        batch = known[rng.integers(len(known), size=BATCH)]
        moved = _shifted(images[batch], rng)
        params, state = step(params, state, moved, labels[batch].astype(np.int32))
    classifier = Classifier(network, params, images.shape[1:], held_out=len(held_out))
    right = classifier.predict(images[held_out]) == labels[held_out]
    classifier.accuracy = float(right.mean())
    return classifier


def _shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to `SHIFT` of 32 pixels; its border is continued."""
    height, width = images.shape[1:3]
    room = max(1, round(SHIFT * min(height, width) / 32))
    padded = np.pad(images, ((0, 0), (room, room), (room, room), (0, 0)), mode="edge")
    top, left = rng.integers(2 * room + 1, size=(2, len(images), 1, 1))
    rows, columns = np.arange(height)[:, None] + top, np.arange(width) + left
    return padded[np.arange(len(images))[:, None, None], rows, columns]
