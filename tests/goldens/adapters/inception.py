"""InceptionV3 of FID (toshas/torch-fidelity)."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.pretrained import inception
from tests.goldens.adapters import recipe
from tests.goldens.case import Adapter, Case

Found = dict[str, Any]


@functools.partial(jax.jit, static_argnums=2)
def _network(variables, prepared, layers):
    features, mutated = inception.KIND.module.apply(
        variables, prepared, capture_intermediates=True, mutable=["intermediates"]
    )
    return features, {name: recipe.endpoint(mutated["intermediates"], name) for name in layers}


def features(case: Case) -> Found:
    """Features, statistics of layers and parts of the resized image, for each size of image.

    Images go in one by one, so that all sizes share one compiled program.
    """
    variables, report = inception.KIND.from_official(recipe.weights(case.meta))
    if not report.complete:
        raise ValueError(f"the state dict does not fit: {report}")
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, case.dtype), variables)
    layers = tuple(sorted({key.split("/stat/")[1] for key in case.stored if "/stat/" in key}))
    found: Found = {}
    for key in case.stored:
        if not key.startswith("in/"):
            continue
        size = re.sub("^(img|images?)_?", "", key.removeprefix("in/"))
        prefix = f"out/{size}/" if size else "out/"
        images = jnp.asarray(case.stored[key].transpose(0, 2, 3, 1)).astype(case.dtype)
        prepared = inception.prepare(images)
        rows = [_network(variables, prepared[i : i + 1], layers) for i in range(len(images))]
        values, endpoints = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
        for name, value in values.items():
            found[f"{prefix}{name}"] = found[f"{prefix}feat_{name}"] = value
        found[f"{prefix}sfid_{values['spatial'].shape[1]}"] = values["spatial"]
        for name, value in endpoints.items():
            found[f"{prefix}stat/{name}"] = recipe.moments(value)
        resized = np.asarray(prepared).transpose(0, 3, 1, 2) * 128 + 128
        found[f"{prefix}resized_lastrow"] = resized[:, :, -1]
        for wanted in case.stored:
            if match := re.fullmatch(rf"{re.escape(prefix)}resized_stride(\d+)", wanted):
                stride = int(match[1])
                found[wanted] = resized[:, :, ::stride, ::stride]
    return found


ADAPTERS = (Adapter("inception", r"^inception", r"InceptionV3", features),)
