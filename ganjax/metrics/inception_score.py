"""The Inception Score: exp of the mean divergence of p(y|x) from p(y) (Salimans et al. 2016).

Everything is float64 on the host. A class of probability zero adds nothing, as the limit of
p log p says, where the official codes give NaN.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import scipy.special
from jaxtyping import Float, Shaped

from ganjax.metrics.blocks import CHECKED, check_features

SPLITS = 10
IMAGE_SEED = 2020  # torch-fidelity's order of the images
VIDEO_SEED = 42  # StyleGAN-V's order of the clips


@dataclasses.dataclass(frozen=True)
class InceptionScore:
    """An Inception Score.

    Attributes:
      mean: over the splits.
      std: over the splits (of a population).
      values: of each split.
    """

    mean: float
    std: float
    values: Float[np.ndarray, "s"]


def inception_score(
    logits: Shaped[np.ndarray, "n k"], *, splits: int = SPLITS, seed: int | None = IMAGE_SEED
) -> InceptionScore:
    """Of images, as torch-fidelity computes it.

    Args:
      logits: of FID's Inception network without the last layer's bias, as all official codes take
        them.
      splits: parts of (almost) equal size that are scored on their own.
      seed: of the order of the samples before they are split; None keeps it.

    Raises:
      ValueError: fewer samples than splits, or logits that are not finite.
    """
    check_features("logits", logits, at_least=max(splits, 1))
    return _score(logits, _of_logits, splits, seed)


def video_inception_score(
    probabilities: Shaped[np.ndarray, "n k"],
    *,
    splits: int = SPLITS,
    seed: int | None = VIDEO_SEED,
) -> InceptionScore:
    """Of clips, by the class probabilities of C3D, as StyleGAN-V computes it.

    TGANv2 scores 2048 clips without splitting (``splits=1``) ten times over.

    Args:
      probabilities: rows sum to one.
      splits, seed: as in `inception_score`.

    Raises:
      ValueError: fewer samples than splits, or rows that are no probabilities.
    """
    check_features("class probabilities", probabilities, at_least=max(splits, 1))
    if probabilities.min() < 0 or abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError(
            "these class probabilities are below zero or do not sum to one; hand over the network's"
            " probabilities, not its logits"
        )
    return _score(probabilities, _of_probabilities, splits, seed)


def _of_logits(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p and p log p."""
    logs = scipy.special.log_softmax(x, axis=1)
    return np.exp(logs), np.exp(logs) * logs


def _of_probabilities(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x, scipy.special.xlogy(x, x)


def _score(x: np.ndarray, read: Callable, splits: int, seed: int | None) -> InceptionScore:
    if splits < 1:
        raise ValueError(f"splits={splits}; at least 1 is wanted, {SPLITS} is usual")
    n = len(x)
    rng = np.random.RandomState(seed)
    order = np.arange(n) if seed is None else rng.permutation(n)
    edges = [i * n // splits for i in range(splits + 1)]
    values = [_split(x, read, order[a:b]) for a, b in itertools.pairwise(edges)]
    return InceptionScore(float(np.mean(values)), float(np.std(values)), np.array(values))


def _split(x: np.ndarray, read: Callable, chosen: np.ndarray) -> float:
    """exp of the entropy of the mean less the mean of the entropies."""
    total, negentropy = np.zeros(x.shape[1]), 0.0
    for start in range(0, len(chosen), CHECKED):
        part = np.asarray(x[chosen[start : start + CHECKED]], np.float64)
        p, p_log_p = read(part)
        total += p.sum(axis=0)
        negentropy += float(p_log_p.sum())
    mean = total / len(chosen)
    return float(np.exp(negentropy / len(chosen) - scipy.special.xlogy(mean, mean).sum()))
