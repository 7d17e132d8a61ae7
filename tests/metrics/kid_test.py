import pathlib

import numpy as np
import pytest

from ganjax.metrics import kid as kids
from ganjax.metrics.kid import Gaussian, Kernel, draw_subsets, kid, maximum_mean_discrepancy
from ganjax.parallel.mesh import make_mesh

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "goldens" / "metrics" / "kid.npz")
A, B = GOLDEN["in/a"], GOLDEN["in/b"]


def exact(a, b, degree=3, gamma=None, coef0=1.0):
    """The estimate in float64, all at once."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    gamma = gamma or 1 / a.shape[1]
    aa, bb, ab = ((gamma * x @ y.T + coef0) ** degree for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return within - 2 * ab.mean()


def test_subsets_are_those_of_torch_fidelity():
    first, second = draw_subsets(400, 350, 5, 60, seed=2020)
    np.testing.assert_array_equal(first, GOLDEN["in/idx_a"])
    np.testing.assert_array_equal(second, GOLDEN["in/idx_b"])


def test_matches_torch_fidelity():
    result = kid(A, B, subsets=5, subset_size=60)
    np.testing.assert_allclose(result.values, GOLDEN["out/per_subset_mmd2"], rtol=1e-6)
    assert result.mean == pytest.approx(float(GOLDEN["out/kid_mean"]), rel=1e-6)
    assert result.std == pytest.approx(float(GOLDEN["out/kid_std"]), rel=1e-5)


@pytest.mark.parametrize("block", [64, 100, 399, 2048])
@pytest.mark.parametrize("devices", [1, 8])
def test_neither_blocks_nor_devices_matter(block, devices):
    mesh = make_mesh() if devices == 8 else None
    value = maximum_mean_discrepancy(A, B, block=block, mesh=mesh)
    assert value == pytest.approx(float(GOLDEN["out/kvd_digan_all_samples"]), rel=1e-7)


@pytest.mark.parametrize("options", [{"degree": 2, "coef0": 0.5}, {"degree": 4, "gamma": 1 / 400}])
def test_other_kernels(options):
    value = maximum_mean_discrepancy(A, B, kernel=Kernel(**options))
    assert value == pytest.approx(exact(A, B, **options), rel=1e-6)


@pytest.mark.parametrize(("sigma", "block"), [(10.0, 100), (4.0, 2048), (3.0, 64)])
def test_gaussian_kernels_of_any_blocks(sigma, block):
    def mean(x, y, diagonal=0):
        squares = np.square(x[:, None].astype(np.float64) - y).sum(-1)
        return (np.exp(-squares / (2 * sigma**2)).sum() - diagonal) / (len(x) * len(y) - diagonal)

    expected = mean(A, A, len(A)) + mean(B, B, len(B)) - 2 * mean(A, B)
    found = maximum_mean_discrepancy(A, B, kernel=Gaussian(sigma), block=block)
    assert found == pytest.approx(expected, rel=1e-5)


def test_close_sets_of_wide_features_keep_their_digits():
    rng = np.random.default_rng(0)
    a, b = np.abs(rng.standard_normal((2, 500, 1024))).astype(np.float32)
    b *= 1.01
    golden = exact(a, b)
    assert 0 < golden < 0.1
    assert maximum_mean_discrepancy(a, b, block=128) == pytest.approx(golden, rel=5e-5)


def test_features_may_lie_in_a_file(tmp_path):
    np.save(tmp_path / "a.npy", A)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert maximum_mean_discrepancy(mapped, B) == maximum_mean_discrepancy(A, B)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="subsets of 1000 of sets of 400 and 350"):
        kid(A, B)
    with pytest.raises(ValueError, match="first set have width 23 and .* second set 24"):
        maximum_mean_discrepancy(A[:, 1:], B)
    with pytest.raises(ValueError, match="1 features of the second set; at least 2"):
        maximum_mean_discrepancy(A, B[:1])
    bad = B.copy()
    bad[7, 0] = np.inf
    with pytest.raises(ValueError, match="second set of item 7 are not finite"):
        maximum_mean_discrepancy(A, bad)
    with pytest.raises(ValueError, match="block=0"):
        maximum_mean_discrepancy(A, B, block=0)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5\); \[n, d\]"):
        kids.check_pair("one", np.zeros((3, 4, 5)), "other", B)
