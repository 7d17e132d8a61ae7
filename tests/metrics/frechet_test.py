import pathlib

import numpy as np
import pytest
import scipy.linalg

from ganjax.metrics import frechet
from ganjax.metrics.frechet import Moments

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
FID = np.load(GOLDENS / "metrics" / "fid.npz")
FVD = np.load(GOLDENS / "video_metrics" / "fvd_formulas.npz")

# Names of `in/`, and of the goldens of that pair. Covariances: full rank; 12 samples of 24
# features; a subspace of a third of the dimensions.
PAIRS = {
    ("a", "b"): ("fid_torch_fidelity", "fid_ttur_sqrtm", "fvd_digan_svd"),
    ("c_few", "b"): ("fid_few_vs_b_torch_fidelity", "fid_few_vs_b_symmetric"),
    ("e_lowrank", "b"): ("fid_lowrank_vs_b_torch_fidelity", "fid_lowrank_vs_b_symmetric"),
    ("c_few", "e_lowrank"): (
        "fid_few_vs_lowrank_torch_fidelity",
        "fid_few_vs_lowrank_symmetric",
        "fvd_few_vs_lowrank_digan_svd",
    ),
}


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_distance_matches_the_references(pair):
    a, b = (Moments.of(FID[f"in/{name}"]) for name in pair)
    for name in PAIRS[pair]:
        assert frechet.distance(a, b) == pytest.approx(float(FID[f"out/{name}"]), rel=1e-7)
        assert frechet.distance(b, a) == pytest.approx(float(FID[f"out/{name}"]), rel=1e-7)


def test_distance_of_population_covariances_matches_nvidia():
    a, b = Moments.of(FID["in/a"]), Moments.of(FID["in/b"])
    np.testing.assert_allclose(a.mean, FID["out/mu_a"], rtol=1e-12)
    np.testing.assert_allclose(a.covariance(), FID["out/sigma_a_nminus1"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(a.covariance(ddof=0), FID["out/sigma_a_pop"], rtol=1e-9, atol=1e-12)
    golden = float(FID["out/fid_nvidia_popcov"])
    assert frechet.distance(a, b, ddof=0) == pytest.approx(golden, rel=1e-9)


def test_distance_matches_stylegan_v():
    real, fake = Moments.of(FVD["in/real_features"][:60]), Moments.of(FVD["in/gen_features"][:50])
    np.testing.assert_allclose(real.mean, FVD["out/mu_real"], rtol=1e-9)
    np.testing.assert_allclose(fake.covariance(ddof=0), FVD["out/sigma_gen"], rtol=1e-7, atol=1e-9)
    golden = float(FVD["out/frechet"])
    assert frechet.distance(fake, real, ddof=0) == pytest.approx(golden, rel=1e-7)


@pytest.mark.parametrize("name", ["a", "b", "c_few", "e_lowrank"])
def test_distance_to_itself_is_zero_and_never_negative(name):
    x = Moments.of(FID[f"in/{name}"])
    assert 0 <= frechet.distance(x, x) < 1e-12 * np.trace(x.covariance())


@pytest.mark.parametrize(
    ("covariance_a", "covariance_b", "expected"),
    [
        (np.zeros((3, 3)), np.zeros((3, 3)), 0.0),
        (np.eye(3), np.zeros((3, 3)), 3.0),
        (np.diag([1.0, 0, 0]), np.diag([0, 1.0, 0]), 2.0),
        (np.diag([4.0, 1e-30, 0]), np.diag([9.0, 1e30, 0]), 1 + 1e30 - 2.0),
        (1e-20 * np.eye(3), 1e-20 * np.eye(3), 0.0),
    ],
    ids=["points", "point", "orthogonal", "scales", "tiny"],
)
def test_distance_of_degenerate_covariances(covariance_a, covariance_b, expected):
    zero = np.zeros(3)
    distance = frechet.frechet_distance(zero, covariance_a, zero, covariance_b)
    assert distance == pytest.approx(expected, rel=1e-7, abs=1e-18)


def test_wide_features_of_few_samples_agree_with_exact_arithmetic():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 20, 200)) * np.geomspace(1, 1e-4, 200)
    # The singular values of the centred samples' product, which never squares anything.
    centred = [(x - x.mean(axis=0)) / np.sqrt(19) for x in (a, b)]
    overlap = scipy.linalg.svdvals(centred[0] @ centred[1].T).sum()
    exact = sum((x**2).sum() for x in centred) - 2 * overlap
    exact += ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    assert frechet.distance(Moments.of(a), Moments.of(b)) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("smallest", [1e-1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
def test_near_singular_covariances_keep_their_digits(monkeypatch, smallest):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    values = np.where(np.arange(40) % 2, 1, smallest)
    a, b = ((turn * values**power) @ turn.T for power in (1, 1.5))
    expected = (values**1.25).sum()
    assert frechet.trace_sqrt_product(a, b) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(frechet, "SQUARABLE", np.inf)
    assert frechet.trace_sqrt_product(a, b) == pytest.approx(expected, rel=1e-10)


def test_any_split_and_order_of_the_stream_gives_the_same_moments():
    x = FID["in/a"].astype(np.float64) + 1e4
    streamed = Moments.empty(24)
    for batch in np.split(x, [1, 3, 3, 150]):
        streamed.update(batch)
    left, right = Moments.of(x[250:]), Moments.of(x[:250])
    left.merge(right)
    left.merge(Moments.empty(24))
    for moments in (streamed, left):
        assert moments.count == 400
        np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(moments.covariance(), np.cov(x.T), rtol=1e-9, atol=1e-11)


def test_moments_survive_their_arrays(tmp_path):
    moments = Moments.of(FID["in/a"])
    np.savez(tmp_path / "m.npz", **moments.to_arrays())
    with np.load(tmp_path / "m.npz") as arrays:
        read = Moments.from_arrays(arrays)
    assert read.count == 400
    np.testing.assert_array_equal(read.mean, moments.mean)
    np.testing.assert_array_equal(read.scatter, moments.scatter)


def test_bad_features_are_named():
    moments = Moments.of(np.zeros((5, 3)))
    bad = np.zeros((4, 3))
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="item 7 are not finite"):
        moments.update(bad)
    with pytest.raises(ValueError, match="width 2 for moments of width 3"):
        moments.update(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="widths 3 and 2"):
        moments.merge(Moments.empty(2))
    with pytest.raises(ValueError, match="covariance of 1 samples; at least 2"):
        Moments.of(np.zeros((1, 3))).covariance()


def test_moments_that_are_not_finite_are_refused():
    one, eye = np.zeros(2), np.eye(2)
    with pytest.raises(ValueError, match="second covariance is not finite"):
        frechet.frechet_distance(one, eye, one, np.full((2, 2), np.inf))
    with pytest.raises(ValueError, match="widths 2 and 3"):
        frechet.distance(Moments.of(np.eye(2)), Moments.of(np.eye(3)))
