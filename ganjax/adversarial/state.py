"""What a training run is made of: the players, the averaged generator, and two counters."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

Variables = Mapping[str, Any]


class Player(flax.struct.PyTreeNode):
    """One network in play.

    Attributes:
      params: its trainable parameters.
      collections: its side state: BatchNorm statistics, spectral-norm vectors, ...
      optimizer: one Optax state for each group of parameters that the same phases touch.
    """

    params: Any
    collections: Any
    optimizer: dict[str, Any]

    @property
    def variables(self) -> dict[str, Any]:
        """What ``module.apply`` takes."""
        return {"params": self.params, **self.collections}


class TrainState(flax.struct.PyTreeNode):
    """All of a run: nothing outside it influences the next step but the seed and the data.

    Leaves are arrays, or shapes of arrays.

    Attributes:
      step: steps taken.
      items: samples of the real stream consumed (images or clips).
      players: the networks in play, by name.
      ema: variables of the averaged player.
      extras: scalars of the game (the path-length mean, ADA's p, ...).
    """

    step: Any
    items: Any
    players: dict[str, Player]
    ema: Any
    extras: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ema:
    """The rule of the averaged network.

    Attributes:
      decay: ``decay(step, items) -> scalar``; ``step`` counts from 1 and includes the current
        one, ``items`` are those seen before it.
      player: whose average it is.
      buffers: side state is averaged like parameters (BigGAN) or copied (StyleGAN).
    """

    decay: Callable[[Array, Array], Any]
    player: str = "g"
    buffers: Literal["average", "copy"] = "copy"

    def update(self, ema: Variables, player: Player, step: Array, items: Array) -> dict[str, Any]:
        """The average after one more step: ``ema * decay + now * (1 - decay)``."""
        decay = self.decay(step, items)

        def average(old, new):
            # In this form an average of what does not move stays what it is, to the bit.
            return new + jnp.asarray(decay, old.dtype) * (old - new)

        now = player.variables
        return {
            name: jax.tree.map(average, ema[name], now[name])
            if name == "params" or self.buffers == "average"
            else now[name]
            for name in now
        }


def constant_decay(decay: float, start_step: int = 0) -> Callable[[Array, Array], Array]:
    """BigGAN's: a plain copy before ``start_step``, then a constant decay per step.

    Raises:
      ValueError: a decay outside [0, 1].
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"An average with decay {decay:g}; set it to a number from 0 to 1.")

    def at(step: Array, items: Array) -> Array:
        del items
        return jnp.where(step < start_step, 0.0, decay)

    return at


def adam(
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float = 1e-8,
    *,
    lazy: int = 0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam, corrected for a lazy regulariser that adds one update every ``lazy`` steps.

    ``learning_rate * r`` and ``betas ** r`` with ``r = lazy / (lazy + 1)`` (StyleGAN2, appendix B);
    ``lazy=0`` is Adam as it stands. With weight decay it is AdamW (Loshchilov and Hutter, 2019).

    Raises:
      ValueError: a learning rate that is negative or no number, a beta outside [0, 1), or weights
        that would grow.
    """
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"A weight decay of {weight_decay:g}; set it to 0 (none) or more.")
    if not (0 <= learning_rate < math.inf and 0 <= b1 < 1 and 0 <= b2 < 1):
        raise ValueError(
            f"Adam with a learning rate of {learning_rate:g}, b1={b1:g}, b2={b2:g}: set the rate "
            "to 0 or more, b1 and b2 to at least 0 and less than 1."
        )
    r = lazy / (lazy + 1) if lazy else 1.0
    if weight_decay:
        return optax.adamw(
            learning_rate * r, b1=b1**r, b2=b2**r, eps=eps, weight_decay=weight_decay
        )
    return optax.adam(learning_rate * r, b1=b1**r, b2=b2**r, eps=eps)


def path_of(path: Sequence[Any]) -> str:
    """``blocks_0/conv1/kernel`` from a key path of ``jax.tree_util``."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def split_by_touch(params: Any, patterns: Mapping[str, str]) -> dict[str, Any]:
    """Split parameters into groups that the same phases touch.

    Args:
      params: nested dict of parameters.
      patterns: phase name -> regular expression of the paths that it moves.

    Returns:
      Group name -> the nested dict of its parameters. The name lists the phases, ``+``-joined; a
      group is what an optimizer state is kept for, so a phase that skips a parameter leaves that
      parameter's moments and counts alone.

    Raises:
      ValueError: a parameter that no phase moves.
    """
    groups: dict[str, dict] = {}
    for path, leaf in flatten_dict(params).items():
        name = "/".join(map(str, path))
        phases = [phase for phase, pattern in patterns.items() if re.search(pattern, name)]
        if not phases:
            raise ValueError(
                f"No phase touches parameter {name!r}; the patterns are {dict(patterns)}. "
                "Widen `touches` of a phase."
            )
        groups.setdefault("+".join(phases), {})[path] = leaf
    if len(groups) == 1:
        return {"all": unflatten_dict(next(iter(groups.values())))}
    return {name: unflatten_dict(leaves) for name, leaves in groups.items()}


def merge(trees: Sequence[Any]) -> Any:
    """The inverse of :func:`split_by_touch`: one nested dict from disjoint ones."""
    flat: dict = {}
    for tree in trees:
        flat.update(flatten_dict(tree))
    return unflatten_dict(flat)
