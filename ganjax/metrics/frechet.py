"""The Frechet distance between two Gaussians, and the moments that it compares.

Everything here is float64 on the host. The distance of N(m1, S1) and N(m2, S2) is

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

(Dowson and Landau 1982; FID: Heusel et al. 2017). S1 S2 is not symmetric, and its general matrix
square root (`scipy.linalg.sqrtm`) turns complex or NaN where a covariance is singular, which is
any covariance of fewer samples than features. But with S1 = A A^T and S2 = B B^T for any A and B,
S1 S2 has the eigenvalues of (A^T B)(A^T B)^T beside zeros, so the trace is the sum of the singular
values of A^T B: real and never NaN. A and B are pivoted Cholesky factors, which stop at the rank.
Where that is not full, or nearly so, nothing is squared: zeros stay at 1e-16 of the largest, where
roots of eigenvalues of S1 S2 are off by 1e-8. It is also less work than any matrix square root.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.linalg
from jaxtyping import Float, Shaped

SQUARABLE = 1e-4  # of A^T B's smallest singular value over its largest


@dataclasses.dataclass
class Moments:
    """Count, mean and scatter of a stream of feature vectors.

    The scatter is the sum of (x - mean)(x - mean)^T, kept about the running mean (Chan, Golub
    and LeVeque 1979): unlike E[xx^T] - mm^T it does not cancel when the mean is large. Any order
    and any split of the stream gives the same moments up to rounding (1e-15 relative).
    """

    count: int
    mean: Float[np.ndarray, "d"]
    scatter: Float[np.ndarray, "d d"]

    @classmethod
    def empty(cls, dim: int) -> "Moments":
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features: Shaped[np.ndarray, "n d"]) -> "Moments":
        """The moments of features that fit in memory."""
        moments = cls.empty(features.shape[1])
        moments.update(features)
        return moments

    def update(self, features: Shaped[np.ndarray, "n d"]) -> None:
        """Count in more feature vectors; padding rows must have been cut off.

        Raises:
          ValueError: another width, or a feature that is not finite.
        """
        x = np.asarray(features, np.float64)
        if x.shape[1] != self.mean.size:
            raise ValueError(
                f"features of width {x.shape[1]} for moments of width {self.mean.size}; they come"
                " from another network or layer"
            )
        if not len(x):
            return
        with np.errstate(invalid="ignore"):
            mean = x.mean(axis=0)
        if not np.isfinite(mean).all():
            finite = np.isfinite(x).all(axis=1)
            raise ValueError(
                f"features of item {self.count + int(np.argmin(finite))} are not finite"
                f" ({int((~finite).sum())} of {len(x)} items in this batch); look at its image"
            )
        rows = np.empty((len(x) + 1, len(mean)))
        np.subtract(x, mean, out=rows[1:])
        self._combine(len(x), mean, rows)

    def merge(self, other: "Moments") -> None:
        """Count in another stream's moments."""
        if other.mean.size != self.mean.size:
            raise ValueError(
                f"moments of widths {self.mean.size} and {other.mean.size} cannot be merged; take"
                " both from the same network and layer"
            )
        if other.count:
            self._combine(other.count, other.mean, np.empty((1, other.mean.size)))
            self.scatter += other.scatter

    def _combine(self, count: int, mean: np.ndarray, rows: np.ndarray) -> None:
        """Counts in samples about their mean, which are all of `rows` but the first."""
        total = self.count + count
        shift = mean - self.mean
        # The two means' own scatter is that row, so that one product does all of it.
        rows[0] = np.sqrt(self.count / total * count) * shift
        self.scatter += rows.T @ rows
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def covariance(self, ddof: int = 1) -> Float[np.ndarray, "d d"]:
        """The covariance: over n - 1 (torch-fidelity, TTUR) or, with ddof=0, n (NVIDIA)."""
        if self.count <= ddof:
            raise ValueError(
                f"a covariance of {self.count} samples; at least {ddof + 1} are wanted"
            )
        return self.scatter / (self.count - ddof)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For a file of statistics; `from_arrays` reads it back."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Moments":
        return cls(
            int(arrays["count"]),
            np.array(arrays["mean"], np.float64),
            np.array(arrays["scatter"], np.float64),
        )


def frechet_distance(
    mean_a: Float[np.ndarray, "d"],
    covariance_a: Float[np.ndarray, "d d"],
    mean_b: Float[np.ndarray, "d"],
    covariance_b: Float[np.ndarray, "d d"],
) -> float:
    """The squared Frechet distance, as FID and FVD state it: real, and never below zero.

    Raises:
      ValueError: moments that are not finite.
    """
    for name, value in {
        "first mean": mean_a,
        "first covariance": covariance_a,
        "second mean": mean_b,
        "second covariance": covariance_b,
    }.items():
        if not np.isfinite(value).all():
            raise ValueError(f"the {name} is not finite")
    overlap = trace_sqrt_product(covariance_a, covariance_b)
    shift = np.asarray(mean_a, np.float64) - np.asarray(mean_b, np.float64)
    distance = shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap
    return max(float(distance), 0.0)  # rounding leaves about -1e-14 for equal moments


def trace_sqrt_product(
    covariance_a: Float[np.ndarray, "d d"], covariance_b: Float[np.ndarray, "d d"]
) -> float:
    """tr (A B)^(1/2) of two symmetric positive semi-definite matrices, of any rank.

    Directions whose variance is at rounding's level of the largest one's count as zero.
    """
    a, b = _factor(covariance_a), _factor(covariance_b)
    product = a.factor.T @ b.factor  # [rank a, rank b]
    if not product.size:
        return 0.0
    if min(product.shape) == len(a.factor) and a.span * b.span > SQUARABLE:
        # Twice as fast, and what squaring loses is below 1e-11 of the largest value.
        squares = np.linalg.eigvalsh(product @ product.T)
        return float(np.sqrt(np.maximum(squares, 0)).sum())
    return float(scipy.linalg.svdvals(product).sum())


@dataclasses.dataclass(frozen=True)
class _Factor:
    """F of full rank r with F F^T = a covariance.

    Attributes:
      span: about F's smallest singular value over its largest.
    """

    factor: Float[np.ndarray, "d r"]
    span: float


def _factor(covariance: np.ndarray) -> _Factor:
    """The pivoted Cholesky factor."""
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(
        np.asarray(covariance, np.float64), lower=1
    )
    rows = np.empty((len(factor), rank))
    rows[pivots - 1] = np.tril(factor)[:, :rank]
    diagonal = factor.diagonal()[:rank]  # from the largest to the smallest
    return _Factor(rows, float(diagonal[-1] / diagonal[0]) if rank else 0.0)


def distance(a: Moments, b: Moments, ddof: int = 1) -> float:
    """The Frechet distance of two streams' moments; `ddof` as in `Moments.covariance`."""
    if a.mean.size != b.mean.size:
        raise ValueError(
            f"moments of widths {a.mean.size} and {b.mean.size} have no distance; take both from"
            " the same network and layer"
        )
    return frechet_distance(a.mean, a.covariance(ddof), b.mean, b.covariance(ddof))
