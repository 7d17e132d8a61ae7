"""Metrics of clips (StyleGAN-V)."""

from typing import Any

import numpy as np

from ganjax.metrics import clips
from ganjax.metrics.frechet import Moments
from ganjax.metrics.inception_score import SPLITS, video_inception_score
from tests.goldens.case import Adapter, Case


def of_fvd(case: Case) -> dict[str, Any]:
    real = Moments.of(case.stored["in/real_features"][: case.call.get("max_real")])
    fake = Moments.of(case.stored["in/gen_features"][: case.call.get("max_gen")])
    probabilities = case.stored["in/probs"]
    score = video_inception_score(probabilities, splits=case.call.get("num_splits", SPLITS))
    return {
        "out/mu_real": real.mean,
        "out/sigma_real": real.covariance(ddof=0),
        "out/mu_gen": fake.mean,
        "out/sigma_gen": fake.covariance(ddof=0),
        "out/frechet": clips.frechet_video_distance(real, fake),
        "out/is_mean": score.mean,
        "out/is_std": score.std,
        # Cutting off is not continuous: in the precision of the reference.
        "out/img_uint8": clips.to_uint8(case.stored["in/img"].astype(np.float64)),
    }


ADAPTERS = (Adapter("video_metrics", r"^fvd", r"frechet_video_distance", of_fvd),)
