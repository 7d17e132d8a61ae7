"""From what was collected of real and fake samples to a metric's values."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from ganjax.metrics.clip_score import clip_score
from ganjax.metrics.collect import Halves
from ganjax.metrics.frechet import distance
from ganjax.metrics.inception_score import inception_score, video_inception_score
from ganjax.metrics.kid import kid, maximum_mean_discrepancy
from ganjax.metrics.pairs import psnr
from ganjax.metrics.path_length import perceptual_path_length
from ganjax.metrics.precision_recall import precision_recall


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a measure looks at.

    Attributes:
      real: of the feature, in the measure's form; None for measures of samples alone.
      fake: of the feature, in the measure's form; None for measures of real samples alone.
      asked: the class that was asked of each fake, where they have classes.
      known: what a measure's reference is, if it is not in the features: the classifier's accuracy
        on real samples that it has not seen.
    """

    real: Any
    fake: Any
    asked: Int[np.ndarray, "n"] | None = None
    known: float | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """A metric's value.

    Attributes:
      values: one or several numbers; the first ranks models.
      spread: the standard deviation of the first, where the protocol states one.
      reference: what real samples get, by what that is.
    """

    values: Mapping[str, float]
    spread: float | None = None
    reference: Mapping[str, float] = dataclasses.field(default_factory=dict)


def averaged(results: Sequence[Result]) -> Result:
    """The mean of repeats, with their standard deviation (of a population); one stays as it is."""
    first = results[0]
    if len(results) == 1:
        return first

    def mean(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}

    leading = next(iter(first.values))
    return Result(
        mean([result.values for result in results]),
        float(np.std([result.values[leading] for result in results])),
        mean([result.reference for result in results]),
    )


@dataclasses.dataclass(frozen=True)
class Measure:
    """A kind of metric.

    Attributes:
      form: of the features that it takes.
      better: "less" or "more", or "near" its reference.
      compute: with the protocol's options.
    """

    form: Literal["moments", "rows"]
    better: Literal["less", "more", "near"]
    compute: Callable[..., Result]


def _frechet(measured: Measured, *, ddof: int) -> Result:
    real: Halves = measured.real
    fake: Halves = measured.fake
    value = distance(real.whole, fake.whole, ddof)
    return Result({"": value}, reference={"real_real": distance(real.even, real.odd, ddof)})


def _reference(measured: Measured, *, ddof: int) -> Result:
    """What a perfect generator would get: the distance of two disjoint sets of real samples."""
    return Result({"": distance(measured.real.even, measured.real.odd, ddof)})


def _kid(measured: Measured, **options: Any) -> Result:
    found = kid(measured.fake, measured.real, **options)
    return Result({"": found.mean}, found.std)


def _kernel(measured: Measured) -> Result:
    """The kernel distance over all samples at once, with no subsets."""
    return Result({"": maximum_mean_discrepancy(measured.fake, measured.real)})


def _clip_score(measured: Measured, **options: Any) -> Result:
    """Of pairs of image and text embeddings [n, 2, e]; beside it, of texts dealt out anew."""
    pairs = measured.real if measured.fake is None else measured.fake
    others = np.random.default_rng(0).permutation(len(pairs))
    return Result(
        {"": clip_score(pairs[:, 0], pairs[:, 1], **options)},
        reference={"shuffled": clip_score(pairs[:, 0], pairs[others, 1], **options)},
    )


def _inception_score(measured: Measured, **options: Any) -> Result:
    found = inception_score(measured.fake, **options)
    return Result({"": found.mean}, found.std)


def _video_inception_score(measured: Measured, **options: Any) -> Result:
    found = video_inception_score(measured.fake, **options)
    return Result({"": found.mean}, found.std)


def _precision_recall(measured: Measured, **options: Any) -> Result:
    found = precision_recall(measured.real, measured.fake, **options)
    return Result({"precision": found.precision, "recall": found.recall})


def _density_coverage(measured: Measured, **options: Any) -> Result:
    found = precision_recall(measured.real, measured.fake, **options)
    return Result({"density": found.density, "coverage": found.coverage})


def _path_length(measured: Measured, *, epsilon: float) -> Result:
    return Result({"": perceptual_path_length(np.asarray(measured.fake, np.float64) / epsilon**2)})


def _psnr(measured: Measured) -> Result:
    return Result({"": psnr(measured.fake)})


def _motion(measured: Measured) -> Result:
    """The mean difference of neighbouring frames, in grey levels of 0 to 255."""
    value, real = (
        float(np.mean(side, dtype=np.float64)) for side in (measured.fake, measured.real)
    )
    return Result({"": value}, reference={"real": real})


def _accuracy(measured: Measured) -> Result:
    assert measured.known is not None
    right = measured.fake.argmax(axis=1) == measured.asked
    return Result({"": float(right.mean())}, reference={"held_out_real": measured.known})


def _combinations(measured: Measured, *, shapes: int) -> Result:
    """Of logits of colours and shapes: whether they are those asked for, both, and each alone.

    Chance is that of a sample and any of the prompts, its own or another's.
    """
    assert measured.known is not None and measured.asked is not None
    both = measured.fake.argmax(axis=1), measured.asked
    values, chances = {}, {}
    for part, (found, asked) in {
        "": both,
        "color": tuple(each // shapes for each in both),
        "shape": tuple(each % shapes for each in both),
    }.items():
        values[part] = float((found == asked).mean())
        kinds = max(found.max(), asked.max()) + 1
        shares = [np.bincount(each, minlength=kinds) / len(each) for each in (found, asked)]
        chances["_".join(filter(None, ("chance", part)))] = float(shares[0] @ shares[1])
    return Result(values, reference=chances | {"held_out_real": measured.known})


MEASURES = {
    "frechet": Measure("moments", "less", _frechet),
    "reference": Measure("moments", "less", _reference),
    "kid": Measure("rows", "less", _kid),
    "kernel": Measure("rows", "less", _kernel),
    "clip_score": Measure("rows", "more", _clip_score),
    "inception_score": Measure("rows", "more", _inception_score),
    "video_is": Measure("rows", "more", _video_inception_score),
    "precision_recall": Measure("rows", "more", _precision_recall),
    "density_coverage": Measure("rows", "more", _density_coverage),
    "path_length": Measure("rows", "less", _path_length),
    "psnr": Measure("rows", "more", _psnr),
    "motion": Measure("rows", "near", _motion),
    "accuracy": Measure("rows", "more", _accuracy),
    "combinations": Measure("rows", "more", _combinations),
}
