"""Improved precision and recall, density and coverage: who lies in whose neighbourhoods.

The ball of a sample reaches to its k-th nearest neighbour in its own set. Precision is the share
of fakes in some real ball, recall that of reals in some fake ball (Kynkaanniemi et al. 2019);
density is how many real balls a fake lies in, over k, and coverage the share of real balls with a
fake inside (Naeem et al. 2020).

The devices compute all distances in float32; what they cannot decide within a bound of their
rounding, the host decides by the float64 distances of just these pairs. The counts are those of
exact arithmetic up to float64's rounding, ties included, whatever the blocks and the devices.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Shaped

from ganjax.metrics.blocks import BLOCK, CHECKED, Devices, View, check_features, check_pair

SPARE = 4  # neighbours fetched beyond the k-th, so that rounding cannot hide it
PAIR_BYTES = 2**26  # of float64 differences that the host looks at together


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """The four shares; see the module.

    Attributes:
      precision, recall, coverage: 0 to 1.
      density: may exceed 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        return 2 * self.precision * self.recall / max(1e-5, self.precision + self.recall)


def precision_recall(
    real: Shaped[np.ndarray, "n d"],
    fake: Shaped[np.ndarray, "m e"],
    *,
    k: int = 3,
    closed: bool = True,
    half: bool = False,
    block: int = BLOCK,
    mesh: Mesh | None = None,
) -> PrecisionRecall:
    """All four, from features.

    Memory: beside the sets, which may be memory-mapped, two blocks of rows and a few blocks of
    pairs, (2 block d + 4 block^2) float32, and a few numbers for each sample; with `half` a float16
    copy of the sets.

    Args:
      k: neighbours; 3 in NVIDIA's code and torch-fidelity, 5 in the paper of density and coverage.
      closed: a sample at the very radius is inside (NVIDIA, torch-fidelity), or, if False, outside
        (the code of density and coverage, StudioGAN).
      half: features, distances and radii are rounded to float16, as in NVIDIA's `pr50k3`, where
        that moves the shares by about the distances' last 1/2048.
      block: rows of a block.
      mesh: the rows of a block are split over its devices; None is one device. Under several
        processes each of them has all features and calls this.

    Raises:
      ValueError: fewer than k + 1 samples in a set, sets of different widths, or features that are
        not finite (in float16, if half).
    """
    if k < 1:
        raise ValueError(f"k={k} neighbours; at least 1 is wanted, 3 is usual")
    if half:
        if not closed:
            raise ValueError("half=True is NVIDIA's code, whose balls are closed: set closed=True")
        with np.errstate(over="ignore"):
            real, fake = np.asarray(real, np.float16), np.asarray(fake, np.float16)
    check_pair("real features", real, "fake features", fake, at_least=k + 1)
    devices = Devices(mesh, block)
    view = _view(real)
    real_squares = _squared_radii(real, k, view, devices)
    fake_squares = _squared_radii(fake, k, view, devices)
    limits = _half_limits if half else functools.partial(_limits, closed=closed)
    fake_inside, real_filled = _inside(fake, real, limits(real_squares), view, devices)
    real_inside, _ = _inside(real, fake, limits(fake_squares), view, devices)
    return PrecisionRecall(
        precision=float((fake_inside > 0).mean()),
        recall=float((real_inside > 0).mean()),
        density=float(fake_inside.mean() / k),
        coverage=float(real_filled.mean()),
    )


def radii(
    features: Shaped[np.ndarray, "n d"],
    k: int,
    *,
    block: int = BLOCK,
    mesh: Mesh | None = None,
) -> Float[np.ndarray, "n"]:
    """The distance of each sample from its k-th nearest other one, float64.

    Raises:
      ValueError: fewer than k + 1 samples, or features that are not finite.
    """
    check_features("features", features, at_least=k + 1)
    devices = Devices(mesh, block)
    return np.sqrt(_squared_radii(features, k, _view(features), devices))


def _view(features: np.ndarray) -> View:
    """About the mean, at unit scale: float32 rounds distances least, and never overflows."""
    centre = np.mean(features, axis=0, dtype=np.float64)
    scale = float(np.max(np.abs(features[:CHECKED] - centre), initial=0.0))
    return View(centre, scale or 1.0)


def _distances(x: np.ndarray, i: np.ndarray, y: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Squared distances of pairs in float64, rounded in the same way whichever way round."""
    found = np.empty(len(i))
    step = max(1, PAIR_BYTES // (8 * x.shape[1]))
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        difference = np.asarray(x[i[part]], np.float64) - np.asarray(y[j[part]], np.float64)
        found[part] = np.square(difference).sum(axis=1)
    return found


def _squared_radii(x: np.ndarray, k: int, view: View, devices: Devices) -> np.ndarray:
    nearest = min(k + 1 + SPARE, len(x))
    first, merge, _, _ = _programs(devices.whole, nearest)
    squares = np.empty(len(x))
    for rows in devices.rows(x, view):
        best: Any = None
        for columns in devices.columns(x, view):
            place = np.array([columns.start, columns.count], np.int32)
            found = first(rows.values, columns.values, place)
            best = found if best is None else merge(best, found)
        least, indices = (np.asarray(part)[: rows.count] for part in best)
        i = np.repeat(np.arange(rows.start, rows.start + rows.count), nearest)
        exact = _distances(x, i, x, indices.ravel()).reshape(rows.count, nearest)
        exact.sort(axis=1)
        squares[rows.rows] = exact[:, k]
        # Who was not fetched is no nearer than the last who was; no radius is below zero.
        hidden = exact[:, k] > np.asarray(least[:, -1], np.float64) * view.scale**2
        unsure = hidden & (exact[:, k] > 0) & (nearest < len(x))
        for row in rows.start + np.flatnonzero(unsure):
            others = np.arange(len(x))
            squares[row] = np.partition(_distances(x, np.full(len(x), row), x, others), k)[k]
    return squares


@dataclasses.dataclass(frozen=True)
class _Balls:
    """How far balls reach, squared, and whether they hold what is just there."""

    squares: Float[np.ndarray, "n"]
    closed: Bool[np.ndarray, "n"]

    def hold(self, j: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Whether ball j holds a sample at this squared distance."""
        return (squares < self.squares[j]) | (self.closed[j] & (squares == self.squares[j]))


def _limits(squares: np.ndarray, closed: bool) -> _Balls:
    return _Balls(squares, np.full(len(squares), closed))


def _half_limits(squares: np.ndarray) -> _Balls:
    """What is rounded to no more than the rounded radius: up to halfway to the next number."""
    radius = np.sqrt(squares).astype(np.float16)
    halfway = (radius.astype(np.float64) + np.nextafter(radius, np.float16(np.inf))) / 2
    return _Balls(halfway**2, radius.view(np.uint16) % 2 == 0)  # halfway goes to the even one


def _inside(
    probes: np.ndarray,
    centres: np.ndarray,
    balls: _Balls,
    view: View,
    devices: Devices,
) -> tuple[Int[np.ndarray, "p"], Bool[np.ndarray, "c"]]:
    """How many balls each probe lies in, and which balls hold a probe."""
    _, _, count, unsure = _programs(devices.whole, 1)
    inside, filled = np.zeros(len(probes), np.int64), np.zeros(len(centres), bool)
    for rows in devices.rows(probes, view):
        for columns in devices.columns(centres, view):
            reach = np.full(len(columns.values), -np.inf, np.float32)
            reach[: columns.count] = balls.squares[columns.rows] / view.scale**2
            given = rows.values, columns.values, devices.put(reach), np.int32(rows.count)
            in_balls, held, unsure_pairs = count(*given)
            inside[rows.rows] += np.asarray(in_balls)[: rows.count]
            filled[columns.rows] |= np.asarray(held)[: columns.count]
            if unsure_pairs:
                i, j = (index.astype(np.int64) for index in np.nonzero(np.asarray(unsure(*given))))
                i, j = i + rows.start, j + columns.start
                within = balls.hold(j, _distances(probes, i, centres, j))
                np.add.at(inside, i[within], 1)
                filled[j[within]] = True
    return inside, filled


@functools.cache
def _programs(whole: jax.sharding.Sharding, nearest: int):
    """For a block of pairs: nearest columns; merge of two; counts inside; pairs to be decided."""

    def distances(rows: Float[Array, "r d"], columns: Float[Array, "c d"]):
        """Squared distances, and bounds of their rounding."""
        product = jnp.dot(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
        norms = jnp.square(rows).sum(axis=1)[:, None] + jnp.square(columns).sum(axis=1)
        steps = 32 + 2 * rows.shape[1] ** 0.5
        return norms - 2 * product, norms * (steps * jnp.finfo(jnp.float32).eps)

    def first(rows, columns, place):
        squares, bounds = distances(rows, columns)
        least = jnp.where(jnp.arange(len(columns)) < place[1], squares - bounds, jnp.inf)
        short = max(nearest - len(columns), 0)
        least = jnp.pad(least, ((0, 0), (0, short)), constant_values=jnp.inf)
        values, chosen = jax.lax.top_k(-least, nearest)
        return -values, chosen + place[0]

    def merge(a, b):
        values, chosen = jax.lax.top_k(-jnp.concatenate([a[0], b[0]], axis=1), nearest)
        indices = jnp.take_along_axis(jnp.concatenate([a[1], b[1]], axis=1), chosen, axis=1)
        return -values, indices

    def excess(rows, columns, reach, count):
        """How far each pair is outside of the ball, infinitely for padding; its rounding."""
        squares, bounds = distances(rows, columns)
        real = (jnp.arange(len(rows)) < count)[:, None] & jnp.isfinite(reach)
        bounds = bounds + jnp.where(real, 4 * jnp.finfo(jnp.float32).eps * reach, 0)
        return jnp.where(real, squares - reach, jnp.inf), bounds

    def count(rows, columns, reach, count):
        outside, bounds = excess(rows, columns, reach, count)
        inside = outside < -bounds
        return inside.sum(axis=1), inside.any(axis=0), (jnp.abs(outside) <= bounds).sum()

    def unsure(rows, columns, reach, count):
        outside, bounds = excess(rows, columns, reach, count)
        return jnp.abs(outside) <= bounds

    return tuple(jax.jit(f, out_shardings=whole) for f in (first, merge, count, unsure))
