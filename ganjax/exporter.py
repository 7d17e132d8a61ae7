"""The averaged generator of a run as files that need no ganjax."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

import ganjax
from ganjax import config as configs
from ganjax import generate
from ganjax.family import Family, Request, official_of
from ganjax.workdir import appearing

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM = "generator.jax"
WEIGHTS = "weights.safetensors"
OFFICIAL = "official.safetensors"

README = """\
# Generator of {family}, step {step}

Made by ganjax {version} with jax {jax} from a run's averaged generator. `config.json` is the run's
config, `{official}` the weights by the names of the official PyTorch code. This draws, after
`pip install jax flatbuffers safetensors`:

```python
import jax
import numpy as np
from safetensors.numpy import load_file

weights = load_file("{weights}")
program = jax.export.deserialize(bytearray(open("{program}", "rb").read()))
n = 4
images = program.call(weights, {{
{example}
}})
```

It is lowered for {platforms}, in float32, for any n; of these, ganjax's tests run it on cpu alone.
`images` is {image} in [-1, 1].

{inputs}
"""
# What draws of these names are, and one that can be tried; others are tried with zeros.
MEANINGS = {
    "z": "latents, from a normal distribution{resampled}",
    "label": "classes, from 0 on; without classes it does not matter",
    "truncation": "distance from the mean style that is kept, 1 for all of it",
}
EXAMPLES = {
    "z": "np.random.normal(size={shape}).astype({dtype!r})",
    "truncation": "np.ones({shape}, {dtype!r})",
}


def export_run(
    workdir: str | os.PathLike,
    out: str | os.PathLike,
    step: int | Literal["best"] | None = None,
    truncation: float | None = None,
) -> pathlib.Path:
    """Write a folder with the generator's program, weights, official weights, config and README.

    The program is `jax.export`'s, for `PLATFORMS` and any batch; it takes the weights as an
    argument, for XLA would else fold them at every start. The folder appears when it is whole.

    Args:
      workdir: of the run.
      out: a folder that is not there, or empty.
      step: of a checkpoint, or ``"best"``; the newest without it.
      truncation: for a family that makes variables ready for one: BigGAN's standing statistics.

    Returns:
      The folder.

    Raises:
      ConfigError: the folder is not empty, or the run is of a family that draws what texts say.
      FileNotFoundError, CheckpointError: as of :func:`ganjax.generate.load`.
    """
    with appearing(out, "--out") as folder:
        model = generate.load(workdir, step, platform="cpu")
        if generate.reads_texts(model.family):
            raise configs.ConfigError(
                "This run's family draws what texts say, with experts that sort the tokens of "
                "a known number of samples and with CLIP beside it: its program is not exported. "
                "Use --mode=sample --prompt=..., or ganjax.generate.load from Python."
            )
        request = Request(truncation=truncation)
        variables = jax.device_get(model.ready(0, request))
        weights = flatten_dict(variables, sep="/")
        draws = _abstract_draws(model.family, request)
        program = _program(model.family, weights, draws)
        (folder / PROGRAM).write_bytes(program.serialize())
        (folder / WEIGHTS).write_bytes(_safetensors(weights))
        official, module = official_of(model.config), model.family.networks[model.family.ema.player]
        state = official.to_official(variables, module) | official.constants(module)
        (folder / OFFICIAL).write_bytes(_safetensors(state))
        (folder / "config.json").write_text(configs.to_json(model.config))
        (folder / "README.md").write_text(_readme(model, program, draws, truncation))
    return pathlib.Path(out)


def _abstract_draws(family: Family, request: Request) -> dict[str, jax.ShapeDtypeStruct]:
    """What the sampler takes, for a batch of unknown size."""
    (n,) = export.symbolic_shape("n")
    shapes = jax.eval_shape(
        lambda key, indices: family.draws(key, indices, request),
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((n, *leaf.shape[1:]), leaf.dtype), shapes)


def _program(family: Family, weights: Mapping[str, Any], draws: Any) -> export.Exported:
    def sample(weights: Mapping[str, Any], draws: Any) -> Any:
        return family.sample(unflatten_dict(dict(weights), sep="/"), draws)

    shapes = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()
    }
    return export.export(jax.jit(sample), platforms=PLATFORMS)(shapes, draws)


def _safetensors(arrays: Mapping[str, Any]) -> bytes:
    return safetensors.numpy.save({k: np.asarray(array, order="C") for k, array in arrays.items()})


def _readme(
    model: generate.Model,
    program: export.Exported,
    draws: Mapping[str, jax.ShapeDtypeStruct],
    truncation: float | None,
) -> str:
    resampled = ""
    if truncation is not None and "truncation" not in draws:
        resampled = f", values beyond {truncation:g} drawn again"
    inputs, examples = [], []
    for name, leaf in draws.items():
        meaning = MEANINGS.get(name, "").format(resampled=resampled)
        inputs.append(f"- `{name}`, {_shaped(leaf)}" + (f": {meaning}" if meaning else ""))
        example = EXAMPLES.get(name, "np.zeros({shape}, {dtype!r})")
        shape = f"[{', '.join(map(str, leaf.shape))}]"
        examples.append(f'    "{name}": {example.format(shape=shape, dtype=str(leaf.dtype))},')
    return README.format(
        family=model.config.family.rpartition(".")[2],
        step=model.step,
        version=ganjax.__version__,
        jax=jax.__version__,
        weights=WEIGHTS,
        program=PROGRAM,
        official=OFFICIAL,
        image=_shaped(program.out_avals[0]),
        platforms=", ".join(PLATFORMS),
        inputs="\n".join(inputs),
        example="\n".join(examples),
    )


def _shaped(leaf: Any) -> str:
    return f"{leaf.dtype} [{', '.join(map(str, leaf.shape))}]"
