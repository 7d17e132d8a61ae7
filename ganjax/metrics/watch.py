"""The collapse watch: what to look at while a GAN trains, and when to stop it.

The signs are those of the BigGAN paper (section 4 and its appendices): the first singular value of
each layer, which explodes when G collapses; the gap between D's logits of real and fake images,
which says who is winning; and how much samples differ from each other, which is what collapse
takes away. Everything here is measured by pure functions; `CollapseWatch` keeps the little that
must be remembered between checks.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

DIVERSITY = "diversity"
LOGIT_GAP = "logit_gap"
TELLING = 0.5  # a logit gap, in D's units, that is more than chance
SIGMA = "sigma"  # sigma/<player>/<layer>, and sigma/<player>/max

Images = Float[Array | np.ndarray, "_ h w c"]
Labels = Int[Array | np.ndarray, "_"]


class CollapseError(RuntimeError):
    """Training is beyond repair; the message says by which number, and what was allowed."""


def sigmas(spectral: Mapping[str, Any]) -> dict[str, float]:
    """The first singular value of each spectrally normalised layer, as of the last training pass.

    Args:
      spectral: the collection "spectral" of each player, by its name.

    Returns:
      ``sigma/<player>/<layer>`` in the order of the tree, and ``sigma/<player>/max``; nothing for
      a player without such layers.
    """
    found: dict[str, float] = {}
    for player, tree in spectral.items():
        values = {
            f"{SIGMA}/{player}/{_path(path[:-1])}": float(np.ravel(leaf)[0])
            for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
            if _path(path[-1:]) == SIGMA
        }
        if values:
            found |= values | {f"{SIGMA}/{player}/max": float(np.max(list(values.values())))}
    return found


def diversity(images: Images, labels: Labels | None = None) -> Float[Array, ""]:
    """Mean Euclidean distance of two different images of the batch; NaN if there is no pair.

    Args:
      labels: only pairs of one class count. A conditional generator that has collapsed to one
        image a class still differs between classes.
    """
    n = len(images)
    flat = images.reshape(n, -1).astype(jnp.float32)
    # Distances do not depend on the origin; near it, equal images cancel to (nearly) nothing.
    flat = flat - jnp.mean(flat, axis=0)
    products = jnp.matmul(flat, flat.T, precision="highest")
    squares = jnp.diagonal(products)
    distances = jnp.sqrt(jnp.maximum(squares[:, None] + squares - 2 * products, 0.0))
    counted = ~jnp.eye(n, dtype=bool)
    if labels is not None:
        counted &= labels[:, None] == labels
    return jnp.sum(distances, where=counted) / jnp.sum(counted)


def relative_diversity(
    fake: Images, real: Images, fake_labels: Labels | None = None, real_labels: Labels | None = None
) -> float | None:
    """The samples' diversity over that of real images: about 1 when all is well, 0 at collapse.

    With labels, pairs within classes are compared, where both batches have any; else all pairs.

    Args:
      fake: samples, all on this host, as `fake_labels`; a few per class are enough.
      real: real images, likewise; as many or not.

    Returns:
      None where the real images cannot be a measure: fewer than two, or all alike.
    """
    if not (_has_pair(fake_labels) and _has_pair(real_labels)):
        fake_labels = real_labels = None
    if len(fake) < 2 or len(real) < 2:
        return None
    measure = float(_diversity(real, real_labels))
    return float(_diversity(fake, fake_labels)) / measure if measure else None


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no floating leaf of the tree has a NaN or an infinity; to be called under jit."""
    checks = [jnp.isfinite(leaf).all() for _, leaf in _floating(tree)]
    return jnp.stack(checks).all() if checks else jnp.array(True)


def nonfinite(tree: Any) -> dict[str, tuple[int, int]]:
    """The leaves that are not finite, in the tree's order: path -> (NaNs, infinities).

    One reduction over the whole tree; a second program counts only if that finds something.
    """
    if bool(_all_finite(tree)):
        return {}
    paths = [_path(path) for path, _ in _floating(tree)]
    return {
        path: (int(nans), int(infinities))
        for path, (nans, infinities) in zip(paths, np.asarray(_count(tree)))
        if nans or infinities
    }


def check_finite(images: int, **trees: Any) -> None:
    """Stops a run whose numbers are none.

    Args:
      images: seen so far, for the message.
      trees: what to check, by the name that it has in the message, most telling first:
        ``losses=...``, ``players=...``.

    Raises:
      CollapseError: names the first tensor of each tree by its path.
    """
    problems = []
    for name, tree in trees.items():
        bad = nonfinite(tree)
        if bad:
            path, (nans, infinities) = next(iter(bad.items()))
            others = f" (and {len(bad) - 1} more tensors)" if len(bad) > 1 else ""
            problems.append(
                f"{name}/{path} has {nans} NaN and {infinities} infinite values{others}"
            )
    if problems:
        raise CollapseError(
            f"At {images} images {'; '.join(problems)}. Lower the learning rates or raise the"
            " batch; docs/checkpoints.md says how to go on with another config."
        )


@dataclasses.dataclass(frozen=True)
class Rules:
    """When a run has collapsed. Each limit may be None, which turns its rule off.

    Attributes:
      min_diversity: of the samples, as a share of the real images'.
      max_sigma: of any layer.
      max_sigma_growth: of any layer, over the geometric mean of its past (half of it the last
        seven checks): slow growth is usual, an explosion is not.
      max_logit_gap: mean D(real) - mean D(fake), in D's units, either way round.
      min_logit_gap: as a share of the largest gap so far, once that was `TELLING`: a D that told
        real from fake and no longer does teaches G nothing.
      patience: checks in a row beyond a limit before the run stops.
    """

    min_diversity: float | None = 0.05
    max_sigma: float | None = 1e4
    max_sigma_growth: float | None = 10.0
    max_logit_gap: float | None = 50.0
    min_logit_gap: float | None = 0.01
    patience: int = 3

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"watch.patience is {self.patience}; at least 1 check is wanted")
        for field in dataclasses.fields(self):
            limit = getattr(self, field.name)
            if limit is not None and not limit > 0:
                raise ValueError(
                    f"watch.{field.name} is {limit}; a positive number is wanted, or None to turn"
                    " the rule off"
                )


_MEMORY = 0.9  # weight of the past in a layer's usual sigma, a check


class CollapseWatch:
    """Applies the rules at each check, and remembers what a rule needs of the checks before.

    Args:
      rules: the limits.
      state: `state` of an earlier watch, to go on where it stopped.
    """

    def __init__(self, rules: Rules = Rules(), state: Mapping[str, float] | None = None):
        self.rules = rules
        state = dict(state or {})
        # Checks in a row for which a rule was broken; and log sigma as it usually is.
        self._broken = {k[7:]: int(v) for k, v in state.items() if k.startswith("broken/")}
        self._usual = {k[6:]: float(v) for k, v in state.items() if k.startswith("usual/")}
        self._largest_gap = float(state.get("largest_gap", 0.0))

    def state(self) -> dict[str, float]:
        """Everything remembered: a number by name, as JSON and checkpoint metrics take them."""
        broken = {f"broken/{k}": float(v) for k, v in self._broken.items()}
        usual = {f"usual/{k}": v for k, v in self._usual.items()}
        return broken | usual | {"largest_gap": self._largest_gap}

    def check(self, images: int, values: Mapping[str, float | None]) -> None:
        """Looks at one set of measurements.

        Args:
          images: seen so far, for the message.
          values: ``diversity`` (`relative_diversity`), ``logit_gap`` and ``sigma/...``
            (`sigmas`), as many of them as were measured; None is not measured. Other names are
            only checked to be finite.

        Raises:
          CollapseError: a value is not finite, or one rule was broken `patience` times in a row.
        """
        measured = {name: float(value) for name, value in values.items() if value is not None}
        for name, value in measured.items():
            if not math.isfinite(value):
                raise CollapseError(f"At {images} images {name} is {value}.")
        for rule, problem in self._problems(measured).items():
            self._broken[rule] = self._broken.get(rule, 0) + 1 if problem else 0
            if self._broken[rule] >= self.rules.patience:
                raise CollapseError(
                    f"Collapse at {images} images: {problem}, for {self._broken[rule]} checks in a"
                    f" row (watch.{rule}={getattr(self.rules, rule):g}). Go on from an earlier"
                    " checkpoint with lower learning rates (docs/checkpoints.md), or set the limit"
                    " to None to train on."
                )

    def _problems(self, values: Mapping[str, float]) -> dict[str, str]:
        """What breaks each rule that these values can tell about; "" where nothing does."""
        rules, problems = self.rules, {}
        if DIVERSITY in values and rules.min_diversity is not None:
            value = values[DIVERSITY]
            bad = value < rules.min_diversity
            problems["min_diversity"] = (
                f"samples differ {value:.3g} times as much as real images do" if bad else ""
            )
        if LOGIT_GAP in values and rules.max_logit_gap is not None:
            value = values[LOGIT_GAP]
            bad = abs(value) > rules.max_logit_gap
            problems["max_logit_gap"] = f"D's logit gap is {value:.3g}" if bad else ""
        if LOGIT_GAP in values and rules.min_logit_gap is not None:
            value = values[LOGIT_GAP]
            self._largest_gap = largest = max(self._largest_gap, abs(value))
            bad = largest >= TELLING and abs(value) < rules.min_logit_gap * largest
            problems["min_logit_gap"] = (
                f"D's logit gap is {value:.3g} and was up to {largest:.3g}, so D no longer tells"
                " real from fake"
                if bad
                else ""
            )
        layers = {
            name.removeprefix(f"{SIGMA}/"): value
            for name, value in values.items()
            if name.startswith(f"{SIGMA}/") and not name.endswith("/max")
        }
        if layers and rules.max_sigma is not None:
            worst = max(layers, key=lambda layer: layers[layer])
            bad = layers[worst] > rules.max_sigma
            problems["max_sigma"] = (
                f"the first singular value of {worst} is {layers[worst]:.3g}" if bad else ""
            )
        if layers and rules.max_sigma_growth is not None:
            growth = {layer: self._growth(layer, value) for layer, value in layers.items()}
            worst = max(growth, key=lambda layer: growth[layer])
            bad = growth[worst] > rules.max_sigma_growth
            problems["max_sigma_growth"] = (
                f"the first singular value of {worst} is {layers[worst]:.3g}, {growth[worst]:.3g}"
                " times what it was"
                if bad
                else ""
            )
        return problems

    def _growth(self, layer: str, sigma: float) -> float:
        """By how much a layer's sigma exceeds what is usual, which then moves towards it."""
        now = math.log(max(sigma, 1e-30))
        usual = self._usual.get(layer, now)
        growth = math.exp(min(now - usual, 700.0))
        # An explosion must not become usual while patience lasts.
        if growth <= (self.rules.max_sigma_growth or math.inf):
            self._usual[layer] = _MEMORY * usual + (1 - _MEMORY) * now
        return growth


def _path(path: Any) -> str:
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def _floating(tree: Any) -> list[tuple[Any, Any]]:
    return [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]


def _has_pair(labels: Array | np.ndarray | None) -> bool:
    return labels is not None and len(np.unique(labels)) < len(labels)


@jax.jit
def _count(tree: Any) -> Int[Array, "leaves 2"]:
    return jnp.stack(
        [jnp.stack([jnp.isnan(leaf).sum(), jnp.isinf(leaf).sum()]) for _, leaf in _floating(tree)]
    )


_all_finite = jax.jit(all_finite)
_diversity = jax.jit(diversity)
