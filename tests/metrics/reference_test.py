import numpy as np
import pytest

from ganjax.metrics.reference import disjoint_sets, split_moments


def test_disjoint_sets_of_real_samples():
    first, second = disjoint_sets(100, 30, 70)
    assert len(first) == 30 and len(second) == 70
    np.testing.assert_array_equal(np.union1d(first, second), np.arange(100))
    assert (first != disjoint_sets(100, 30, 70, seed=1)[0]).any()
    x = np.random.default_rng(0).standard_normal((100, 4))
    for start, part in ((0, x), (0, x[:99])):
        a, b = split_moments(np.array_split(part, 7), (first, second), start)
        np.testing.assert_allclose(a.mean, part[first[first < len(part)]].mean(axis=0))
        assert b.count == (second < len(part)).sum()
    a, _ = split_moments([x[50:]], (first, second), start=50)
    np.testing.assert_allclose(a.mean, x[first[first >= 50]].mean(axis=0))
    with pytest.raises(ValueError, match="disjoint sets of 60 and 50 of 100"):
        disjoint_sets(100, 60, 50)
    with pytest.raises(ValueError, match="there are no features"):
        split_moments([], (first, second))
