"""One pass gives every metric what it wants, whatever the batches."""

import numpy as np
import pytest

from ganjax.metrics.collect import Halves, Want, collect
from ganjax.metrics.frechet import Moments

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(23, 4)).astype(np.float32), RNG.normal(size=(23, 2, 3)).astype(np.float32)
WANTS = (
    Want("net", "a", 23, "moments"),
    Want("net", "a", 7, "moments"),
    Want("net", "a", 7, "rows"),
    Want("net", "b", 23, "rows"),
    Want("net", "b", 23, "moments"),
)


def batches(size, start=0):
    for first in range(start, 23, size):
        rows = slice(first, first + size)
        yield {"net": {"a": A[rows], "b": B[rows]}}


def same(moments, rows):
    expected = Moments.of(rows.reshape(len(rows), -1))
    assert moments.count == expected.count
    np.testing.assert_allclose(moments.mean, expected.mean, atol=1e-14)
    np.testing.assert_allclose(moments.scatter, expected.scatter, atol=1e-12)


@pytest.mark.parametrize("size", [1, 5, 23])
def test_moments_of_halves_and_rows_of_the_first(size, tmp_path):
    found = collect(batches(size), 0, WANTS, tmp_path)
    for want, rows in ((WANTS[0], A), (WANTS[1], A[:7]), (WANTS[4], B)):
        same(found[want].even, rows[::2])
        same(found[want].odd, rows[1::2])
        same(found[want].whole, rows)
    np.testing.assert_array_equal(found[WANTS[2]], A[:7])
    assert isinstance(found[WANTS[2]], np.memmap), "rows stay in their file"
    np.testing.assert_array_equal(found[WANTS[3]], B)


def test_a_share_beyond_what_a_metric_counts_adds_nothing(tmp_path):
    found = collect(batches(4, start=8), 8, WANTS[:3], tmp_path)
    same(found[WANTS[0]].even, A[8::2])
    assert found[WANTS[1]].whole.count == 0 and found[WANTS[1]].whole.mean.shape == (4,)
    assert found[WANTS[2]].shape == (0, 4)


def test_a_feature_that_is_no_number_is_named(tmp_path):
    broken = A.copy()
    broken[13, 1] = np.inf
    parts = [{"net": {"a": rows}} for rows in np.split(broken, [9])]
    with pytest.raises(ValueError, match="net gives .* not finite, first of sample 113 .1 of 14"):
        collect(parts, 100, [Want("net", "a", 200, "rows")], tmp_path)


def test_halves_come_back_from_their_arrays(tmp_path):
    halves = collect(batches(9), 0, WANTS[:1], tmp_path)[WANTS[0]]
    back = Halves.from_arrays(halves.to_arrays())
    np.testing.assert_array_equal(back.whole.scatter, halves.whole.scatter)
    assert back.even.count == 12 and back.odd.count == 11
