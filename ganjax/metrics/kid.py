"""The Kernel Inception Distance: an unbiased estimate of the squared maximum mean discrepancy.

The kernel is (gamma <x, y> + coef0)^degree (Binkowski et al. 2018), or a Gaussian. It is summed in
float32 at "highest" precision without its constant, which the estimate cancels: what is left is as
small as the features' products, and so is its rounding. Sums of rows are added in float64.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Shaped

from ganjax.metrics.blocks import BLOCK, Devices, check_pair

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020  # torch-fidelity's
LANES = 32  # a row is summed in two steps, which rounds less


@dataclasses.dataclass(frozen=True)
class Kernel:
    """(gamma <x, y> + coef0)^degree.

    Attributes:
      gamma: None is 1 / d.
    """

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0

    def less_constant(
        self, rows: Float[Array, "r d"], columns: Float[Array, "c d"]
    ) -> Float[Array, "r c"]:
        """Of all pairs, without what it is for zeros: (x + c)^p - c^p = x (p c^(p-1) + ...)."""
        # A divisor: 1 / gamma is often a whole number, where gamma would be rounded.
        x = _products(rows, columns) / (rows.shape[1] if self.gamma is None else 1 / self.gamma)
        value = jnp.zeros_like(x)
        for power in range(self.degree, 0, -1):
            factor = math.comb(self.degree, power) * self.coef0 ** (self.degree - power)
            value = x * (value + factor)
        return value


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """exp(-|x - y|^2 / (2 sigma^2))."""

    sigma: float = 10.0

    def less_constant(
        self, rows: Float[Array, "r d"], columns: Float[Array, "c d"]
    ) -> Float[Array, "r c"]:
        """Of all pairs, without the 1 that it is for equal ones."""
        norms = [jnp.square(x).sum(axis=1) for x in (rows, columns)]
        squares = norms[0][:, None] + norms[1] - 2 * _products(rows, columns)
        return jnp.expm1(-squares / (2 * self.sigma**2))


def _products(rows: Array, columns: Array) -> Array:
    return jnp.dot(rows, columns.T, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True)
class Kid:
    """A Kernel Inception Distance.

    Attributes:
      mean: over the subsets. NVIDIA's code and tables state 1000 times this.
      std: over the subsets (of a population).
      values: of each subset.
    """

    mean: float
    std: float
    values: Float[np.ndarray, "s"]


def kid(
    a: Shaped[np.ndarray, "n d"],
    b: Shaped[np.ndarray, "m e"],
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SEED,
    kernel: Kernel | Gaussian = Kernel(),
    block: int = BLOCK,
    mesh: Mesh | None = None,
) -> Kid:
    """The mean over random subsets of both sets, as torch-fidelity and NVIDIA compute it.

    Args:
      a, b: features; which is real does not matter, but for which of them is drawn first.
      subset_size: samples of each set in a subset. NOTE: NVIDIA takes fewer where a set has fewer;
        here that is an error, for the estimate's spread depends on it.
      seed: of the subsets (`draw_subsets`).
      block, mesh: see `maximum_mean_discrepancy`.

    Raises:
      ValueError: a set smaller than a subset, or what `maximum_mean_discrepancy` refuses.
    """
    check_pair("features of the first set", a, "features of the second set", b)
    chosen = draw_subsets(len(a), len(b), subsets, subset_size, seed)
    return kid_of_subsets(a, b, *chosen, kernel=kernel, block=block, mesh=mesh)


def draw_subsets(
    n: int, m: int, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
) -> tuple[Int[np.ndarray, "s k"], Int[np.ndarray, "s k"]]:
    """Which samples of two sets of n and m are in each subset, as torch-fidelity draws them.

    Without replacement inside a subset; in turn one of the first set, one of the second.
    """
    if subsets < 1 or not 2 <= size <= min(n, m):
        raise ValueError(
            f"{subsets} subsets of {size} of sets of {n} and {m} samples; at least one subset of 2"
            f" to {min(n, m)} is possible: set subset_size, or give more samples"
        )
    rng = np.random.RandomState(seed)
    chosen = [
        (rng.choice(n, size, replace=False), rng.choice(m, size, replace=False))
        for _ in range(subsets)
    ]
    first, second = zip(*chosen)
    return np.stack(first), np.stack(second)


def kid_of_subsets(
    a: Shaped[np.ndarray, "n d"],
    b: Shaped[np.ndarray, "m e"],
    chosen_a: Int[np.ndarray, "s k"],
    chosen_b: Int[np.ndarray, "s l"],
    *,
    kernel: Kernel | Gaussian = Kernel(),
    block: int = BLOCK,
    mesh: Mesh | None = None,
) -> Kid:
    """`kid` of given subsets."""
    values = np.array(
        [
            maximum_mean_discrepancy(a[i], b[j], kernel=kernel, block=block, mesh=mesh)
            for i, j in zip(chosen_a, chosen_b)
        ]
    )
    return Kid(float(values.mean()), float(values.std()), values)


def maximum_mean_discrepancy(
    a: Shaped[np.ndarray, "n d"],
    b: Shaped[np.ndarray, "m e"],
    *,
    kernel: Kernel | Gaussian = Kernel(),
    block: int = BLOCK,
    mesh: Mesh | None = None,
) -> float:
    """The unbiased estimate from all samples of both sets; below zero by chance if they agree.

        sum_{i != j} k(a_i, a_j) / n(n-1) + sum_{i != j} k(b_i, b_j) / m(m-1) - 2 mean k(a_i, b_j)

    Memory: beside the sets, which may be memory-mapped, two blocks of rows and a block of pairs,
    (2 block d + 3 block^2) float32. Neither the block nor the devices change the result by more
    than float32's rounding.

    Args:
      block: rows of a block.
      mesh: the rows of a block are split over its devices; None is one device. Under several
        processes each of them has all features and calls this.

    Raises:
      ValueError: sets of fewer than 2 samples or of different widths, or features that are not
        finite.
    """
    check_pair("features of the first set", a, "features of the second set", b, at_least=2)
    devices = Devices(mesh, block)
    n, m = len(a), len(b)
    within_a = _sum(a, None, kernel, devices) / (n * (n - 1))
    within_b = _sum(b, None, kernel, devices) / (m * (m - 1))
    return within_a + within_b - 2 * _sum(a, b, kernel, devices) / (n * m)


def _sum(a: np.ndarray, b: np.ndarray | None, kernel: Kernel | Gaussian, devices: Devices) -> float:
    """The kernel without its constant over all pairs; without b over the pairs of a."""
    program = _program(devices.whole, kernel)
    total = 0.0
    for rows in devices.rows(a):
        for columns in devices.columns(a if b is None else b):
            # Where a column's own row lies; nowhere between two sets.
            same = columns.start - rows.start if b is None else np.iinfo(np.int32).max // 2
            place = np.array([same, rows.count, columns.count], np.int32)
            sums = program(rows.values, columns.values, place)
            total += float(np.asarray(sums, np.float64).sum())
    return total


@functools.cache
def _program(whole: jax.sharding.Sharding, kernel: Kernel | Gaussian):
    def sums(
        rows: Float[Array, "r d"], columns: Float[Array, "c d"], place: Int[Array, "3"]
    ) -> Float[Array, "r"]:
        value = kernel.less_constant(rows, columns)
        row, column = jnp.arange(len(rows))[:, None], jnp.arange(len(columns))[None]
        same, row_count, column_count = place
        counted = (row != column + same) & (row < row_count) & (column < column_count)
        value = jnp.where(counted, value, 0)
        lanes = jnp.pad(value, ((0, 0), (0, -len(columns) % LANES)))
        return lanes.reshape(len(rows), -1, LANES).sum(axis=1).sum(axis=1)

    return jax.jit(sums, out_shardings=whole)
