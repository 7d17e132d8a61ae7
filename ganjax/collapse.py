"""The collapse watch of a run: takes its measurements from the state, and remembers."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ganjax.adversarial.state import TrainState
from ganjax.family import Family, Request
from ganjax.layers.images import to_float
from ganjax.metrics.watch import (
    DIVERSITY,
    LOGIT_GAP,
    CollapseWatch,
    Rules,
    check_finite,
    relative_diversity,
    sigmas,
)
from ganjax.parallel.mesh import replicated
from ganjax.parallel.rules import whole

SEED = 1  # of the fakes: the same latents throughout
FAKES, REALS = 64, 256  # images whose diversity is compared
CLASSES = 8  # that the fakes are of


class Watch:
    """Measures a run, and stops it by the rules of `ganjax.metrics.watch`.

    Args:
      family: whose averaged player makes the fakes, with the weights that train.
      mesh: where the state lies.
      config: the run's; its ``watch`` has the limits.
      frozen: variables of the family's networks that never learn.
    """

    def __init__(self, family: Family, mesh: Mesh, config: ConfigDict, frozen: Any = None):
        limits = {field.name: config.watch[field.name] for field in dataclasses.fields(Rules)}
        self._rules = Rules(**limits)
        self._watch = CollapseWatch(self._rules)
        self._player, self._family, self._frozen = family.ema.player, family, frozen or {}
        classes = tuple(range(min(config.data.get("classes") or 0, CLASSES)))

        def fakes(variables):
            key, indices = jax.random.key(SEED), jnp.arange(FAKES)
            draws = family.draws(key, indices, Request(classes))
            return _pictures(family.sample(variables, draws)), draws.get("label")

        def reals(batch):
            first = jax.tree.map(lambda leaf: leaf[0, 0, :REALS], batch)
            real = first["clip"] if "clip" in first else first["image"]
            return to_float(_pictures(real)), first.get("label")

        # On every process, for the host compares them.
        self._fakes = jax.jit(fakes, out_shardings=replicated(mesh))
        self._reals = jax.jit(reals, out_shardings=replicated(mesh))

    def measure(
        self, state: TrainState, batch: Mapping[str, Any], values: Mapping[str, float]
    ) -> dict[str, float]:
        """Singular values of every layer, D's logit gap and the samples' diversity.

        Args:
          batch: real samples.
          values: means of the phases' metrics; the gap is that of ``<phase>/logit_real`` and
            ``<phase>/logit_fake``, where a phase has them.
        """
        spectral = {
            name: player.collections["spectral"]
            for name, player in state.players.items()
            if "spectral" in player.collections
        }
        measured = sigmas(spectral)
        for name, real in values.items():
            fake = values.get(name.removesuffix("real") + "fake")
            if name.endswith("/logit_real") and fake is not None:
                measured[LOGIT_GAP] = real - fake
        variables = whole(state.players[self._player].variables)
        fake, fake_labels = jax.device_get(
            self._fakes(self._family.sampled(variables, state.extras, self._frozen))
        )
        real, real_labels = jax.device_get(self._reals(batch))
        diversity = relative_diversity(fake, real, fake_labels, real_labels)
        return measured | ({} if diversity is None else {DIVERSITY: diversity})

    def check(self, images: int, values: Mapping[str, float], state: TrainState) -> None:
        """Holds what was logged against the rules.

        Raises:
          CollapseError: a number is not finite, or a rule was broken for long enough.
        """
        if not all(map(math.isfinite, values.values())):
            check_finite(images, players={n: p.variables for n, p in state.players.items()})
        self._watch.check(images, values)

    def memory(self) -> dict[str, float]:
        """What a resumed run must know, to be kept in its checkpoints."""
        return {f"watch/{name}": value for name, value in self._watch.state().items()}

    def remember(self, metrics: Mapping[str, float]) -> None:
        """Goes on from the ``memory`` among a checkpoint's metrics."""
        kept = {k.removeprefix("watch/"): v for k, v in metrics.items() if k.startswith("watch/")}
        self._watch = CollapseWatch(self._rules, kept)


def _pictures(samples: Any) -> Any:
    """Images themselves, the first frames of clips."""
    return samples if samples.ndim == 4 else samples[:, 0]
