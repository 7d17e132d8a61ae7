import pathlib

import numpy as np
import pytest
import scipy.special

from ganjax.metrics import inception_score as scores
from ganjax.metrics.inception_score import inception_score, video_inception_score

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
GOLDEN = np.load(GOLDENS / "metrics" / "inception_score.npz")
LOGITS = GOLDEN["in/logits"]


@pytest.mark.parametrize("splits", [1, 7, 10])
@pytest.mark.parametrize(("name", "seed"), [("shuffled", 2020), ("inorder", None)])
def test_matches_torch_fidelity(splits, name, seed):
    score = inception_score(LOGITS, splits=splits, seed=seed)
    golden = float(GOLDEN[f"out/is_mean_splits{splits}_{name}"])
    assert score.mean == pytest.approx(golden, rel=1e-12)
    golden = float(GOLDEN[f"out/is_std_splits{splits}_{name}"])
    assert score.std == pytest.approx(golden, rel=1e-10, abs=1e-12)


def test_matches_stylegan_v():
    probabilities = scipy.special.softmax(LOGITS.astype(np.float64), axis=1)
    score = video_inception_score(probabilities)
    assert score.mean == pytest.approx(float(GOLDEN["out/isv_stylegan_v_mean"]), rel=1e-12)
    assert score.std == pytest.approx(float(GOLDEN["out/isv_stylegan_v_std"]), rel=1e-10)
    whole = video_inception_score(probabilities, splits=1).mean
    assert whole == pytest.approx(float(GOLDEN["out/is_tgan2_splits1"]), rel=1e-9)


def test_extremes():
    certain = np.eye(5)[np.arange(20) % 5]
    assert video_inception_score(certain, splits=1).mean == pytest.approx(5)
    assert video_inception_score(np.full((20, 4), 0.25), splits=2).mean == pytest.approx(1)
    assert inception_score(1e4 * certain, splits=1).mean == pytest.approx(5)


def test_any_block_gives_the_same(monkeypatch):
    whole = inception_score(LOGITS)
    monkeypatch.setattr(scores, "CHECKED", 3)
    np.testing.assert_allclose(inception_score(LOGITS).values, whole.values, rtol=1e-13)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="9 logits; at least 10"):
        inception_score(LOGITS[:9])
    with pytest.raises(ValueError, match="splits=0"):
        inception_score(LOGITS, splits=0)
    with pytest.raises(ValueError, match="probabilities, not its logits"):
        video_inception_score(LOGITS)
    with pytest.raises(ValueError, match="0 class probabilities"):
        video_inception_score(np.zeros((0, 4)))
