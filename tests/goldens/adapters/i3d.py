"""I3D of FVD: hassony2/kinetics_i3d_pytorch, and pytorch_i3d of VideoGPT and DIGAN."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.pretrained import i3d
from ganjax.pretrained.network import Kind
from tests.goldens.adapters import recipe
from tests.goldens.case import Adapter, Case


@functools.partial(jax.jit, static_argnums=(0, 3))
def _network(module, variables, prepared, layers):
    features, mutated = module.apply(
        variables, prepared, capture_intermediates=True, mutable=["intermediates"]
    )
    return features, {name: recipe.endpoint(mutated["intermediates"], name) for name in layers}


def ours(layer: str) -> str:
    """Our name of a layer that a case names as either port does."""
    if layer in ("logits", "conv3d_0c_1x1"):
        return "logits"
    return layer if layer == "avg_pool" else layer[0].upper() + layer[1:]


def features(case: Case, kind: Kind) -> dict[str, Any]:
    """Features, statistics and corners of layers, parts of the prepared clip."""
    module = kind.module.clone(classes=case.kwargs.get("num_classes", 400))
    kind = dataclasses.replace(kind, module=module)
    variables, report = kind.from_official(recipe.weights(case.meta))
    if not report.complete:
        raise ValueError(f"the state dict does not fit: {report}")
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, case.dtype), variables)
    (key,) = (key for key in case.stored if key.startswith("in/"))
    clips = case.stored[key]
    if "BCTHW" in key:
        clips = clips.transpose(0, 2, 3, 4, 1)
    prepared = kind.prepare(jnp.asarray(clips).astype(case.dtype))
    layers = {key.split("/")[2] for key in case.stored if re.match("out/(stat|sub)/", key)}
    asked = tuple(sorted({ours(layer) for layer in layers}))
    rows = [_network(kind.module, variables, prepared[i : i + 1], asked) for i in range(len(clips))]
    values, endpoints = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
    channels_first = np.asarray(prepared).transpose(0, 4, 1, 2, 3)
    found = {
        "out/preprocessed_sub": channels_first[:, :, ::5, ::16, ::16],
        "out/preprocessed_lastrow": channels_first[:, :, 0, -1],
        "out/logits": values["logits"],
        "out/probs": values["probabilities"],
        "out/avg_pool_features": values["pool"],
    }
    for layer in layers:
        value = endpoints[ours(layer)]
        found[f"out/stat/{layer}"] = recipe.moments(value)
        found[f"out/sub/{layer}"] = value.transpose(0, 4, 1, 2, 3)[:, :4, :, ::3, ::3]
    return found


ADAPTERS = (
    Adapter(
        "i3d", r"^inception_i3d", r"InceptionI3d", functools.partial(features, kind=i3d.VIDEOGPT)
    ),
    Adapter("i3d", r"^i3d", r"i3dpt", functools.partial(features, kind=i3d.HASSONY)),
)
