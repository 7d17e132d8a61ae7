import numpy as np
import pytest

from ganjax.metrics import clip_score as module
from ganjax.metrics.clip_score import clip_score, similarities

RNG = np.random.default_rng(0)
IMAGES, TEXTS = RNG.standard_normal((2, 20, 8)).astype(np.float32)


def test_is_the_mean_cosine(monkeypatch):
    monkeypatch.setattr(module, "CHECKED", 7)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (IMAGES, TEXTS)]
    np.testing.assert_allclose(similarities(IMAGES, TEXTS), np.diag(unit[0] @ unit[1].T), 1e-5)
    assert clip_score(IMAGES, TEXTS) == pytest.approx(np.diag(unit[0] @ unit[1].T).mean(), 1e-5)
    assert clip_score(IMAGES, 3 * IMAGES) == pytest.approx(1)
    assert clip_score(IMAGES, -IMAGES) == pytest.approx(-1)


def test_scales_and_what_is_no_less_than_zero():
    cosines = similarities(IMAGES, TEXTS)
    assert cosines.mean() < 0 < cosines.max()
    found = clip_score(IMAGES, TEXTS, scale=2.5, floor="each")
    assert found == pytest.approx(2.5 * cosines[cosines > 0].sum() / 20)
    assert clip_score(IMAGES, TEXTS, scale=100.0, floor="mean") == 0
    assert clip_score(IMAGES, -TEXTS, scale=100.0, floor="mean") == pytest.approx(
        -100 * cosines.mean()
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="20 image and 19 text"):
        clip_score(IMAGES, TEXTS[:19])
    with pytest.raises(ValueError, match="image embeddings have width 8 and text embeddings 7"):
        clip_score(IMAGES, TEXTS[:, 1:])
    with pytest.raises(ValueError, match="item 3 is zero"):
        clip_score(IMAGES, TEXTS * (np.arange(20) != 3)[:, None])
    with pytest.raises(ValueError, match="0 image embeddings"):
        clip_score(IMAGES[:0], TEXTS[:0])
