"""What a perfect generator would get: the distance between two disjoint sets of real samples.

A Frechet distance of finite sets is above zero even if both come from one distribution. Aurora's
reference FID states by how much, for the very data and counts of an evaluation.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int, Shaped

from ganjax.metrics.features import Accumulator
from ganjax.metrics.frechet import Moments
from ganjax.metrics.hosts import merge_moments


def disjoint_sets(
    count: int, first: int, second: int, seed: int = 0
) -> tuple[Int[np.ndarray, "a"], Int[np.ndarray, "b"]]:
    """Two random sets of `first` and `second` of `count` samples that share none, each in order.

    Raises:
      ValueError: more samples than there are, or an empty set.
    """
    if min(first, second) < 1 or first + second > count:
        raise ValueError(
            f"disjoint sets of {first} and {second} of {count} real samples; positive numbers that"
            f" add up to {count} at most are wanted: use smaller sets, or more real samples"
        )
    chosen = np.random.default_rng(seed).permutation(count)[: first + second]
    return np.sort(chosen[:first]), np.sort(chosen[first:])


def split_moments(
    features: Iterable[Shaped[np.ndarray, "_ d"]],
    sets: tuple[Int[np.ndarray, "a"], Int[np.ndarray, "b"]],
    start: int = 0,
) -> tuple[Moments, Moments]:
    """The moments of both sets, in one pass over the features of this process's samples.

    Args:
      features: of samples `start`, `start` + 1, ...
      sets: which samples are in which (`disjoint_sets`).
      start: where this process's share begins.

    Returns:
      Of all processes' samples together.

    Raises:
      ValueError: no features at all.
    """
    first, second = Accumulator(), Accumulator()
    for part in features:
        here = np.arange(start, start + len(part))
        for accumulator, chosen in zip((first, second), sets):
            accumulator.update(part[np.isin(here, chosen, assume_unique=True)])
        start += len(part)
    return merge_moments(first.moments()), merge_moments(second.moments())
