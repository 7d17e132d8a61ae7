"""Each measure gives what its function gives of the very features."""

import numpy as np
import pytest

from ganjax.metrics.collect import Halves
from ganjax.metrics.frechet import Moments, distance
from ganjax.metrics.inception_score import inception_score
from ganjax.metrics.kid import kid, maximum_mean_discrepancy
from ganjax.metrics.measures import MEASURES, Measured, Result, averaged
from ganjax.metrics.precision_recall import precision_recall

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(40, 5)).astype(np.float32)
FAKE = (RNG.normal(size=(30, 5)) + 0.5).astype(np.float32)


def halves(rows):
    return Halves(Moments.of(rows[::2]), Moments.of(rows[1::2]))


@pytest.mark.parametrize("ddof", [0, 1])
def test_frechet_and_its_reference(ddof):
    result = MEASURES["frechet"].compute(Measured(halves(REAL), halves(FAKE)), ddof=ddof)
    expected = distance(Moments.of(REAL), Moments.of(FAKE), ddof)
    assert result.values[""] == pytest.approx(expected, rel=1e-12)
    expected = distance(Moments.of(REAL[::2]), Moments.of(REAL[1::2]), ddof)
    assert result.reference["real_real"] == pytest.approx(expected, rel=1e-12)


def test_measures_of_rows():
    both = Measured(REAL, FAKE)
    options = {"subsets": 3, "subset_size": 10, "seed": 1}
    result, expected = MEASURES["kid"].compute(both, **options), kid(FAKE, REAL, **options)
    assert (result.values[""], result.spread) == (expected.mean, expected.std)
    result = MEASURES["precision_recall"].compute(both, k=3, closed=True)
    shares = precision_recall(REAL, FAKE, k=3, closed=True)
    assert result.values == {"precision": shares.precision, "recall": shares.recall}
    result = MEASURES["density_coverage"].compute(both, k=5, closed=False)
    shares = precision_recall(REAL, FAKE, k=5, closed=False)
    assert result.values == {"density": shares.density, "coverage": shares.coverage}
    result = MEASURES["inception_score"].compute(Measured(None, FAKE), splits=3, seed=2020)
    score = inception_score(FAKE, splits=3, seed=2020)
    assert (result.values[""], result.spread) == (score.mean, score.std)


def test_accuracy_counts_the_classes_that_were_asked():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    measured = Measured(None, logits, asked=np.array([0, 1, 1, 2]), known=0.9)
    result = MEASURES["accuracy"].compute(measured)
    assert result.values == {"": 0.75} and result.reference == {"held_out_real": 0.9}


def test_the_mean_of_repeats_and_their_deviation():
    found = averaged(
        [Result({"": x, "b": -x}, None, {"real_real": 2 * x}) for x in (1.0, 2.0, 6.0)]
    )
    assert found.values == {"": 3.0, "b": -3.0} and found.reference == {"real_real": 6.0}
    assert found.spread == pytest.approx(np.std([1, 2, 6]))
    one = Result({"": 1.0}, 0.5)
    assert averaged([one]) is one


def test_the_kernel_distance_takes_all_samples():
    result = MEASURES["kernel"].compute(Measured(REAL, FAKE))
    assert result.values[""] == maximum_mean_discrepancy(FAKE, REAL)


def test_captions_and_pictures_agree():
    pairs = np.stack([FAKE, 2 * FAKE], axis=1)
    result = MEASURES["clip_score"].compute(Measured(pairs, None), scale=100.0, floor="mean")
    assert result.values[""] == pytest.approx(100)
