"""A tiny CLIP of the built-in captioned shapes, which nobody publishes: it is trained where it is
first wanted, in a minute or two on a CPU.

It learns from the pictures that a text-to-image GAN may train on, too: what is held out of those
(`data.captioned_shapes.HELD_OUT`) this network has not seen either.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from jaxtyping import Array, Float, Int, UInt8

from ganjax.data.captioned_shapes import (
    COMBINATIONS,
    HELD_OUT,
    CaptionedShapes,
    vocabulary,
)
from ganjax.pretrained import clip
from ganjax.pretrained.blocks import HIGHEST
from ganjax.pretrained.tokens import WordTokenizer

NAME = "clip-shapes"
VERSION = 2  # of all that `Training` does not say
SIZE = 32  # pixels that it looks at
CONTEXT = 20  # tokens; the longest caption has 15 words
SHOWN = 64  # captions that a picture is compared with, in `accuracy`


@functools.cache
def tokenizer() -> WordTokenizer:
    """Of the words of `captioned_shapes`."""
    return WordTokenizer(vocabulary(), CONTEXT)


class ImageTower(nn.Module):
    """Strided convolutions, what they see anywhere and on average: as of `clip.ImageTower`.

    Small things lie anywhere in these pictures, and of so few of them a transformer of patches
    learns less: docs/pretrained.md.

    Attributes:
      embedding: size of the space shared with texts.
      channels: of the first convolution; they double at each of the two others.
      size: of the pictures, in pixels.
      precision, dtype: as of `clip.ImageTower`.
    """

    embedding: int
    channels: int = 16
    size: int = SIZE
    precision: Any = HIGHEST
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> dict[str, Float[Array, "n _"]]:
        x = images
        for level in range(3):
            side = 3 if level else 5
            x = nn.Conv(
                self.channels << level,
                (side, side),
                strides=2,
                dtype=self.dtype,
                precision=self.precision,
            )(x)
            x = nn.relu(nn.GroupNorm(num_groups=4, dtype=self.dtype)(x))
        largest = nn.max_pool(x, x.shape[1:3])[:, 0, 0]
        x = jnp.concatenate([largest, x.mean(axis=(1, 2))], axis=-1)
        dense = functools.partial(nn.Dense, dtype=self.dtype, precision=self.precision)
        pooled = nn.relu(dense(4 * self.channels)(x))
        return {
            "pooled": pooled,
            "embedding": dense(self.embedding, use_bias=False, name="projection")(pooled),
        }


MODULE = clip.Clip(
    image=ImageTower(embedding=32),
    text=clip.TextTower(
        width=64,
        layers=1,
        heads=4,
        embedding=32,
        vocabulary=tokenizer().size,
        context=CONTEXT,
    ),
)
KIND = clip.kind(MODULE)


@dataclasses.dataclass(frozen=True)
class Training:
    """How it is trained.

    Attributes:
      seed: of pictures, weights and batches.
      items: pictures, of the split "train", one or two things in each.
      steps: of `batch` pictures and captions, each of which is told from the others.
      learning_rate: of AdamW, at its highest.
      warm_up: share of the steps until it is.
      weight_decay: of AdamW.
      alone: share of the steps, the first ones, whose pictures have one thing. The colours of two
        tell most pictures of a batch apart, and shapes are not learned.
    """

    seed: int = 0
    items: int = 20_000
    steps: int = 2_000
    batch: int = 64
    learning_rate: float = 2e-3
    warm_up: float = 0.1
    weight_decay: float = 0.05
    alone: float = 0.5

    def __post_init__(self) -> None:
        for field, least in (("items", 2), ("steps", 1), ("batch", 2)):
            if getattr(self, field) < least:
                raise ValueError(
                    f"config.{field}={getattr(self, field)}: expected {least} or more."
                )
        for field in ("warm_up", "alone"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(
                    f"config.{field}={getattr(self, field)}: expected a share, below 1."
                )

    def digest(self) -> str:
        """Of all that the network depends on; names its file."""
        content = [VERSION, dataclasses.asdict(self), self._source().fingerprint()]
        content.append(tokenizer().fingerprint)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _source(self) -> CaptionedShapes:
        return CaptionedShapes((SIZE, SIZE), self.items, self.seed)


def train(training: Training, show: bool = True) -> dict[str, Any]:
    """The network's variables, NumPy arrays; the same from the same numbers on the same machine.

    Args:
      show: progress, on standard error.
    """
    source = training._source()
    images, tokens = _items(source, "drawing pictures" if show else "")
    every = np.arange(len(source))
    single = np.array([len(source.scene(index).things) == 1 for index in range(len(source))])
    variables = _init(training.seed)
    state = _optimizer(training).init(variables)
    rng = np.random.default_rng(training.seed)
    bar = tqdm.tqdm(range(training.steps), desc=f"training {NAME}", disable=not show)
    for number in bar:
        shown = every[single] if number < training.alone * training.steps else every
        rows = rng.choice(shown, size=training.batch)
        variables, state, value = _step(training, variables, state, images[rows], tokens[rows])
        if number % 50 == 0 or number == training.steps - 1:
            bar.set_postfix(loss=f"{value:.3f}")
    return jax.tree.map(np.asarray, variables)


def _optimizer(training: Training) -> optax.GradientTransformation:
    schedule = optax.cosine_onecycle_schedule(
        training.steps, training.learning_rate, pct_start=training.warm_up
    )
    return optax.adamw(schedule, b2=0.98, weight_decay=training.weight_decay)


@functools.partial(jax.jit, static_argnums=0)
def _step(training: Training, variables: Any, state: Any, images: Array, tokens: Array) -> Any:
    def loss(variables):
        return contrast(_logits(variables, images, tokens))

    value, gradient = jax.value_and_grad(loss)(variables)
    updates, state = _optimizer(training).update(gradient, state, variables)
    return optax.apply_updates(variables, updates), state, value


@jax.jit
def _init(seed: Any) -> Any:
    return MODULE.init(jax.random.key(seed), *(jnp.zeros(x.shape, x.dtype) for x in KIND.examples))


@jax.jit
def _logits(variables: Any, images: Any, tokens: Any) -> Any:
    found: Any = MODULE.apply(variables, clip.normalise(jnp.asarray(images)), tokens)
    return found["logits_per_image"]


def contrast(logits: Float[Array, "n n"]) -> Float[Array, ""]:
    """The loss of CLIP: each picture finds its text, each text its picture."""
    own = jnp.arange(len(logits))
    entropy = optax.softmax_cross_entropy_with_integer_labels
    return (entropy(logits, own).mean() + entropy(logits.T, own).mean()) / 2


def accuracy(variables: Mapping[str, Any], seed: int = 1, count: int = 1024) -> dict[str, float]:
    """How well pictures find their texts: of the split "heldout", which was never seen.

    Args:
      seed: of pictures; not that of the training.
      count: of pictures, a multiple of `SHOWN`.

    Returns:
      Shares: "held_out" of pictures of one thing whose own combination is the nearest of the six
      that are held out, "all" of all 48; "captions" of pictures of one or two things whose own
      caption is nearest, among those of 64 pictures.
    """
    source = CaptionedShapes((SIZE, SIZE), count, seed, "heldout", objects=1)
    images, _ = _items(source)
    asked = np.array([COMBINATIONS.index(source.scene(i).combination) for i in range(count)])
    texts = tokenizer()([f"a {color} {shape}" for color, shape in COMBINATIONS])
    parts = np.split(images, len(images) // SHOWN)
    scores = np.concatenate([_logits(variables, part, texts) for part in parts])
    held_out = np.array([COMBINATIONS.index(combination) for combination in HELD_OUT])
    own = []
    images, tokens = _items(CaptionedShapes((SIZE, SIZE), count, seed, "heldout"))
    for start in range(0, count, SHOWN):
        words = tokens[start : start + SHOWN]
        nearest = np.asarray(_logits(variables, images[start : start + SHOWN], words)).argmax(1)
        own.append((words[nearest] == words).all(axis=1))
    return {
        "held_out": float((held_out[scores[:, held_out].argmax(axis=1)] == asked).mean()),
        "all": float((scores.argmax(axis=1) == asked).mean()),
        "captions": float(np.mean(own)),
    }


def _items(
    source: CaptionedShapes, show: str = ""
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, "n l"]]:
    """All pictures and tokens of a source."""
    bar = tqdm.tqdm(range(len(source)), desc=show, leave=False, disable=not show)
    items = [source[index] for index in bar]
    images = np.stack([item["image"] for item in items])
    return images, tokenizer()([item["caption"] for item in items])
