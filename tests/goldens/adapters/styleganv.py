"""StyleGAN-V."""

import random
from typing import Any

import numpy as np

from ganjax.data.clips import Even, Sparse, Times
from tests.goldens.case import Adapter, Case


def sampler(experiment: dict[str, Any]) -> Times:
    """The rule that an experiment of ``sampling`` was made with."""
    given = experiment["cfg"]
    fields = {
        "frames": given["num_frames_per_video"],
        "max_dist": given.get("max_dist"),
        "fractional": experiment["use_fractional_t"],
    }
    if given["type"] == "uniform":
        return Even(**fields)
    dists = given["total_dists"]
    return Sparse(dists=None if dists is None else tuple(dists), **fields)


def of_sampling(case: Case) -> dict[str, Any]:
    found = {}
    for number, experiment in enumerate(case.meta["experiments"]):
        times, length = sampler(experiment), experiment["total_video_len"]
        draws = random.Random(experiment["python_random_seed"])
        uniform = [drawn(draws, times, length) for _ in experiment["first20"]]
        found[f"{number}/first20"] = times(np.array(uniform), length)
    return found


def drawn(draws: random.Random, times: Times, length: int) -> list[float]:
    """The uniform numbers that make a rule choose as the reference did, draw by draw."""
    if isinstance(times, Even):
        most = min(times.max_dist or length, length // times.frames)
        dist = draws.randint(1, most)
        chosen, span = (dist - 1 + 0.5) / most, dist * (times.frames - 1)
    else:
        most = min(length - 1, times.max_dist)
        known = times.dists or range(most)
        fitting = [dist for dist in known if times.frames - 1 <= dist <= most]
        span = draws.choice(fitting)
        chosen = (fitting.index(span) + 0.5) / len(fitting)
    rest = length - span
    place = draws.random() if times.fractional else (draws.randint(0, rest - 1) + 0.5) / rest
    if isinstance(times, Even):
        return [chosen, place]
    inner = draws.sample(range(1, span), times.frames - 2)
    numbers = [frame - 1 - sum(f < frame for f in inner[:i]) for i, frame in enumerate(inner)]
    return [chosen, place, *((n + 0.5) / (span - 1 - i) for i, n in enumerate(numbers))]


ADAPTERS = (Adapter("styleganv", r"^sampling$", r"sample_frames", of_sampling),)
