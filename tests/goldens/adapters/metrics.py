"""Metrics of features (torch-fidelity, StudioGAN, NVIDIA, TTUR, DIGAN, TGAN)."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.special

from ganjax.metrics import frechet
from ganjax.metrics.frechet import Moments
from ganjax.metrics.inception_score import inception_score, video_inception_score
from ganjax.metrics.kid import (
    Gaussian,
    Kernel,
    draw_subsets,
    kid_of_subsets,
    maximum_mean_discrepancy,
)
from ganjax.metrics.precision_recall import precision_recall
from tests.goldens.case import Adapter, Case

Found = dict[str, Any]


def wanted(case: Case) -> list[str]:
    """Keys of the outputs, without their folder."""
    return [key.removeprefix("out/") for key in case.stored if key.startswith("out/")]


def of_frechet(case: Case) -> Found:
    """Moments of a set, and distances between two: `a` and `b` where a key names none."""
    sets = {
        key.removeprefix("in/"): Moments.of(x) for key, x in case.stored.items() if key[:3] == "in/"
    }

    # `few` is the set `c_few`, too.
    sets |= {key.partition("_")[2]: moments for key, moments in sets.items() if "_" in key}

    def named(text: str) -> Moments:
        """Of the set that a text begins with the longest name of."""
        name = max((key for key in sets if f"{text}_".startswith(f"{key}_")), key=len)
        return sets[name]

    found = {}
    for key in wanted(case):
        if match := re.fullmatch(r"mu_(\w+)", key):
            found[f"out/{key}"] = named(match[1]).mean
        elif match := re.fullmatch(r"sigma_(\w+)_(nminus1|pop)", key):
            found[f"out/{key}"] = named(match[1]).covariance(ddof=int(match[2] == "nminus1"))
        else:
            match = re.fullmatch(r"(?:fid|fvd)_(\w+)_vs_(\w+)", key)
            a, b = match.groups() if match else ("a", "b")
            ddof = 0 if key.endswith("popcov") else 1
            found[f"out/{key}"] = frechet.distance(named(a), named(b), ddof)
    return found


def kernel_of(options: Mapping[str, Any]) -> Kernel | Gaussian:
    """The kernel of torch-fidelity's options; older versions have shorter names."""
    if options.get("kid_kernel", "poly") == "rbf":
        return Gaussian(float(options.get("kid_kernel_rbf_sigma", 10)))

    def option(name: str, otherwise: Any) -> Any:
        return options.get(f"kid_kernel_poly_{name}", options.get(f"kid_{name}", otherwise))

    gamma = option("gamma", None)
    coef0 = float(option("coef0", 1))
    return Kernel(option("degree", 3), None if gamma is None else float(gamma), coef0)


def of_kid(case: Case) -> Found:
    options = case.kwargs
    kernel = kernel_of(options)
    a, b = case.stored["in/a"], case.stored["in/b"]
    if "in/idx_a" in case:
        chosen = case["in/idx_a"], case["in/idx_b"]
    else:
        subsets, size = options.get("kid_subsets", 100), options.get("kid_subset_size", 1000)
        chosen = draw_subsets(len(a), len(b), subsets, size, options.get("rng_seed", 2020))
    result = kid_of_subsets(a, b, *chosen, kernel=kernel)
    return {
        "out/per_subset_mmd2": result.values,
        "out/kid_mean": result.mean,
        "out/kid_std": result.std,
        "out/kid_nvidia_x1000": 1000 * result.mean,
        "out/kvd_digan_all_samples": maximum_mean_discrepancy(a, b),
    }


def of_neighbours(case: Case) -> Found:
    """Balls are closed in torch-fidelity and open in StudioGAN."""
    real, fake = case.stored["in/real"], case.stored["in/fake"]
    found: Found = {}
    for key in wanted(case):
        match = re.fullmatch(r"(studiogan_)?(\w+)_k(\d+)", key)
        if match is None:
            raise ValueError(f"{key} is not one of the shares, such as precision_k3")
        result = precision_recall(real, fake, k=int(match[3]), closed=not match[1])
        found[f"out/{key}"] = getattr(result, match[2])
    return found


def of_inception_score(case: Case) -> Found:
    logits = case.stored["in/logits"]
    # NOTE: TGAN and TGANv2 add 1e-20 or 1e-7 to the probabilities; it tells in no digit compared.
    whole = inception_score(logits, splits=1, seed=None).mean
    clips = video_inception_score(scipy.special.softmax(logits.astype(np.float64), axis=1))
    found = {
        "out/isv_stylegan_v_mean": clips.mean,
        "out/isv_stylegan_v_std": clips.std,
        "out/is_tgan2_splits1": whole,
        "out/is_tgan": whole,
    }
    for key in wanted(case):
        if match := re.fullmatch(r"is_(mean|std)_splits(\d+)_(shuffled|inorder)", key):
            seed = 2020 if match[3] == "shuffled" else None
            score = inception_score(logits, splits=int(match[2]), seed=seed)
            found[f"out/{key}"] = getattr(score, match[1])
    return found


ADAPTERS = (
    Adapter("metrics", r"^fid", r"metric_fid", of_frechet),
    Adapter("metrics", r"^kid", r"metric_kid", of_kid),
    Adapter("metrics", r"^(precision|prc|prdc)", r"metric_prc", of_neighbours),
    Adapter("metrics", r"^inception_score", r"metric_isc", of_inception_score),
)
