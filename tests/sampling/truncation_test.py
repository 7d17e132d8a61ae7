import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ganjax.sampling import truncation

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "goldens" / "biggan" / "truncation.npz")
KEY = jax.random.key(5)


@pytest.mark.parametrize("threshold", [2.0, 0.5, 0.04])
def test_truncated_normal_is_the_distribution_of_resampling(threshold):
    draws = np.asarray(truncation.latents(KEY, 0, 400, 50, threshold)).ravel()
    assert np.abs(draws).max() <= threshold
    rng = np.random.default_rng(0)
    resampled = rng.standard_normal(draws.size)
    while (far := np.abs(resampled) > threshold).any():
        resampled[far] = rng.standard_normal(far.sum())
    assert scipy.stats.ks_2samp(draws, resampled).pvalue > 1e-3
    assert np.std(draws) == pytest.approx(truncation.truncated_normal_std(threshold), rel=0.02)


def test_scaling_is_another_convention():
    draws = np.asarray(truncation.scaled_truncated_normal(KEY, (20_000,), 0.5))
    assert 0.95 < np.abs(draws).max() <= 1.0
    assert np.std(draws) == pytest.approx(0.5 * GOLDEN["out/std_of_truncnorm"], rel=0.02)


@pytest.mark.parametrize("scale", ["1.0", "0.4"])
def test_published_latents_are_reproduced(scale):
    golden = GOLDEN[f"out/z_trunc{scale}_seed7"]
    ours = truncation.pretrained_biggan_latents(7, *golden.shape, float(scale))
    np.testing.assert_array_equal(ours, golden)


def test_quantiles_match_the_golden_map():
    ours = truncation.truncated_normal_quantile(jnp.asarray(GOLDEN["in/u"]), 2.0)
    golden = GOLDEN["out/truncnorm_ppf_of_u"]
    assert np.abs(ours - golden).max() <= 1e-6 * np.abs(golden).max()
    assert truncation.truncated_normal_std(2.0) == pytest.approx(GOLDEN["out/std_of_truncnorm"])


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_an_item_depends_on_key_and_index_alone(threshold):
    many = np.asarray(truncation.latents(KEY, 0, 12, 6, threshold))
    np.testing.assert_array_equal(many[7:10], truncation.latents(KEY, 7, 3, 6, threshold))
    chosen = truncation.latents_at(KEY, np.array([9, 2]), 6, threshold)
    np.testing.assert_array_equal(many[[9, 2]], chosen)
    assert len(np.unique(many)) == many.size
    assert (many != np.asarray(truncation.latents(jax.random.key(6), 0, 12, 6, threshold))).all()


def test_one_key_gives_the_same_quantiles_at_every_threshold():
    full = scipy.stats.norm.cdf(truncation.latents(KEY, 0, 4, 8))
    half = truncation.latents(KEY, 0, 4, 8, 0.5)
    quantiles = scipy.stats.truncnorm.cdf(np.asarray(half), -0.5, 0.5)
    np.testing.assert_allclose(quantiles, full, atol=1e-5)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_is_no_positive_number_is_refused(bad):
    with pytest.raises(ValueError, match="positive number"):
        truncation.latents(KEY, 0, 2, 3, bad)
