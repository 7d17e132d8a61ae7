"""A small network of clips that learns on the built-in videos of moving shapes, on the spot.

Its features are what a Frechet distance of videos compares where nothing can be downloaded. They
know what moves and how: the network tells a clip's shape, and where and how large the shape is at
the clip's ends. The distance is a measure within these videos, not to be compared with
FVD.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, UInt8

FRAMES = 16
SIDE = 32  # pixels across, to which all frames are brought
FEATURES = 64
STEPS = 600
BATCH = 32
LEARNING_RATE = 3e-3
WARM_UP = 0.15  # of the steps


class Network(nn.Module):
    """Strided convolutions of each frame, then of features over time.

    Attributes:
      classes: number of logits.
      moves: numbers that say how the shape moves.
    """

    classes: int
    moves: int

    @nn.compact
    def __call__(
        self, clips: UInt8[Array, "n 16 h w c"]
    ) -> tuple[Float[Array, "n f"], Float[Array, "n k"], Float[Array, "n m"]]:
        """Features, logits and moves."""
        n, t, height, width, _ = clips.shape
        x = clips.astype(jnp.float32) / 127.5 - 1
        x = jnp.broadcast_to(x, (n, t, height, width, 3)).reshape(n * t, height, width, 3)
        x = jax.image.resize(x, (n * t, SIDE, SIDE, 3), "linear")  # means, where it shrinks
        for level in range(3):
            taps = 3 if level else 5
            x = nn.Conv(8 << level, (taps, taps), strides=2)(x)
            x = nn.relu(nn.GroupNorm(num_groups=4)(x))
        # Places matter here, so nothing is pooled.
        x = nn.relu(nn.Dense(FEATURES)(x.reshape(n, t, -1)))
        for _ in range(2):  # pairs of neighbours become one
            x = nn.relu(nn.Dense(FEATURES)(x.reshape(n, x.shape[1] // 2, -1)))
        features = nn.relu(nn.Dense(FEATURES)(x.reshape(n, -1)))
        return features, nn.Dense(self.classes)(features), nn.Dense(self.moves)(features)


def train(
    clips: UInt8[np.ndarray, "n 16 h w c"],
    labels: Int[np.ndarray, "n"],
    moves: Float[np.ndarray, "n m"],
    classes: int,
    steps: int = STEPS,
) -> tuple[Network, dict[str, Any]]:
    """The network and its parameters.

    The same clips give the same network on the same machine.

    Args:
      labels: 0 .. classes - 1, of the shapes.
      moves: what is to be told of each clip, of any scale.
    """
    rng = np.random.default_rng(0)
    network = Network(classes, moves.shape[1])
    params = jax.jit(network.init)(jax.random.key(0), clips[:1])["params"]
    schedule = optax.cosine_onecycle_schedule(steps, LEARNING_RATE, pct_start=WARM_UP)
    optimizer = optax.adam(schedule)
    state = optimizer.init(params)
    wanted = ((moves - moves.mean(0)) / moves.std(0)).astype(np.float32)

    # NOTE: a Python loop; XLA runs convolutions inside of `scan` many times slower on a CPU.
    @jax.jit
    def step(params, state, clips, labels, wanted):
        def loss(params):
            outputs: Any = network.apply({"params": params}, clips)
            _, logits, found = outputs
            told = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return told.mean() + jnp.square(found - wanted).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        batch = rng.integers(len(clips), size=BATCH)
        params, state = step(
            params, state, clips[batch], labels[batch].astype(np.int32), wanted[batch]
        )
    return network, jax.device_get(params)


def to_arrays(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters as a file keeps them."""
    return {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `to_arrays`."""
    return unflatten_dict(dict(arrays), sep="/")
