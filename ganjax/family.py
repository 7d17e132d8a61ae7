"""The contract of a GAN family: four small things, and nothing else in ganjax knows a family.

A family is a package with ``networks.py``, ``phases.py`` and ``official.py`` whose ``__init__``
has ``build(config) -> Family``; a config names it by ``config.family = that_package.__name__``.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from ganjax.adversarial.phases import Phase, init_state
from ganjax.adversarial.state import Ema, TrainState
from ganjax.parallel.rules import Rule


@dataclasses.dataclass(frozen=True)
class Family:
    """A GAN, ready to be trained, planned and sampled.

    Attributes:
      networks: the modules in play, by player.
      init: ``init(key) -> {player: variables}``; also traced by ``jax.eval_shape``.
      phases: who plays, in order.
      optimizers: one for each player.
      ema: the rule of the averaged player, which is the one that samples.
      item: one item of the real stream, ``{"image": ShapeDtypeStruct((h, w, c), uint8), ...}``.
      draws: ``draws(key, indices, request) -> draws``: the random numbers and conditions of the
        samples ``indices`` (Int[n]). Sample i is a pure function of ``(key, i, request)``.
      sample: ``sample(variables, draws) -> Float[n, h, w, c]`` in [-1, 1], pure, to be jitted.
      ready: ``ready(variables, key) -> variables``: once before sampling (standing statistics).
      sheets: pictures of this family beside the plain grid, by name:
        ``sheet(sampler) -> sampling.grid.Sheet``.
      rules: where parameters live on the mesh; the default replicates.
    """

    networks: Mapping[str, nn.Module]
    init: Callable[[jax.Array], Mapping[str, Any]]
    phases: tuple[Phase, ...]
    optimizers: Mapping[str, optax.GradientTransformation]
    ema: Ema
    item: Mapping[str, jax.ShapeDtypeStruct]
    draws: Callable[..., Any]
    sample: Callable[[Any, Any], Any]
    ready: Callable[[Any, jax.Array], Any] = lambda variables, key: variables
    sheets: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def init_state(self, key: jax.Array) -> TrainState:
        """The state before the first step."""
        return init_state(self.init(key), self.phases, self.optimizers, self.ema)

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the state, without making one."""
        return jax.eval_shape(self.init_state, jax.eval_shape(lambda: jax.random.key(0)))

    def parameter_count(self, player: str) -> int:
        """Trainable parameters of one player."""
        variables = jax.eval_shape(self.init, jax.eval_shape(lambda: jax.random.key(0)))
        leaves = jax.tree.leaves(variables[player]["params"])
        return sum(int(np.prod(leaf.shape)) for leaf in leaves)


def build(config: Any) -> Family:
    """The family that ``config.family`` names.

    Raises:
      ValueError: the module cannot be imported or has no ``build``.
    """
    try:
        module = importlib.import_module(config.family)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"config.family={config.family!r} cannot be imported ({error}). Set it to a family's "
            "module name, as configs/biggan.py does: config.family = biggan.__name__."
        ) from error
    if not hasattr(module, "build"):
        raise ValueError(f"config.family={config.family!r} has no build(config) -> Family.")
    return module.build(config)
