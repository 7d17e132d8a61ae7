"""C3D of the video Inception Score (pfnet-research/tgan2)."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.pretrained import c3d
from tests.goldens.adapters import recipe
from tests.goldens.case import Adapter, Case


@functools.partial(jax.jit, static_argnums=(0, 3))
def _network(module, variables, prepared, layers):
    features, mutated = module.apply(variables, prepared, mutable=["intermediates"])
    return features, {name: recipe.endpoint(mutated["intermediates"], name) for name in layers}


def features(case: Case) -> dict[str, Any]:
    """Features, statistics and corners of layers."""
    state = recipe.weights(case.meta) | {"mean": recipe.volume(case.meta["mean_volume"])}
    module = c3d.C3D(case.kwargs.get("n_outputs", c3d.CLASSES))
    variables, report = dataclasses.replace(c3d.KIND, module=module).from_official(state)
    if not report.complete:
        raise ValueError(f"the state dict does not fit: {report}")
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, case.dtype), variables)
    (key,) = (key for key in case.stored if key.startswith("in/"))
    scale = float(re.search(r"int8/([\d.]+)", case.meta["call"])[1])
    clips = case.stored[key].transpose(0, 2, 3, 4, 1).astype(case.dtype) / scale
    prepared = c3d.prepare_unit(jnp.asarray(clips, case.dtype))
    layers = tuple(
        sorted({key.split("/")[2] for key in case.stored if re.match("out/(stat|sub)/", key)})
    )
    rows = [_network(module, variables, prepared[i : i + 1], layers) for i in range(len(clips))]
    values, endpoints = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
    found = {f"out/{name}": value for name, value in values.items()}
    found |= {"out/fc8": values["logits"], "out/prob": values["probabilities"]}
    for name, value in endpoints.items():
        corner = value.transpose(0, 4, 1, 2, 3)
        corner = corner[:, :64] if name == "pool5" else corner[:, :4, :, ::3, ::3]
        found |= {f"out/stat/{name}": recipe.moments(value), f"out/sub/{name}": corner}
    return found


ADAPTERS = (Adapter("c3d", r"^c3d", r"C3D", features),)
