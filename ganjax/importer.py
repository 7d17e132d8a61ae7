"""A run from official weights: from then on sampled, measured and trained like any other."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from ganjax import checkpoint
from ganjax import config as configs
from ganjax.adversarial.state import TrainState
from ganjax.config import ConfigError
from ganjax.family import Family, Official, build, official_of, settle
from ganjax.interop.report import Report
from ganjax.interop.weights import Weights, read_weights
from ganjax.workdir import appearing, write_atomically

# What becomes of a network that the file lacks.
ANEW = {
    "G": "not in the file; begins as its average",
    "D": "not in the file; begins anew",
    "G_ema": "not in the file; begins as G",
}
SOURCE = "import.json"  # in the run: which file it is of


def import_run(
    weights: str | os.PathLike,
    workdir: str | os.PathLike,
    config: ConfigDict | None = None,
    overrides: Mapping[str, str] | None = None,
) -> dict[str, Report]:
    """Write a run directory whose newest checkpoint, of step 0, has the official weights.

    Players that the file lacks start anew, G from the average; so do all optimizers. The directory
    appears when it is whole.

    Args:
      weights: a file or folder for :func:`ganjax.interop.weights.read_weights`.
      workdir: a directory that is not there, or empty.
      config: of the family; without it a snapshot's is its family's `CONFIG`, and that of other
        weights is in ``config.json`` beside them, as of our exports. What the file tells replaces
        fields.
      overrides: of the config's fields; they have the last word.

    Returns:
      What became of each network's entries, by its official name.

    Raises:
      ConfigError: the workdir is not empty, or no config where one is needed.
      ValueError: weights that do not fit the config, that cannot be read, or are no numbers.
    """
    with appearing(workdir, "--workdir") as partial:
        config, state, reports = _run(weights, config, overrides or {})
        checkpoint.prepare(partial, config)
        with checkpoint.Checkpoints(partial, config=config) as checkpoints:
            checkpoints.save(0, state, wait=True)
        write_atomically(partial / SOURCE, _source(pathlib.Path(weights), reports))
    return reports


def _source(weights: pathlib.Path, reports: Mapping[str, Report]) -> bytes:
    """Which files the networks are of, by content."""
    files = [weights / f"{name}.pth" for name in reports] if weights.is_dir() else [weights]
    sums = {}
    for path in files:
        with open(path, "rb") as file:
            sums[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    networks = {name: len(report.matched) for name, report in reports.items()}
    return json.dumps({"sha256": sums, "entries": networks}, indent=2).encode()


def _run(
    weights: str | os.PathLike, config: ConfigDict | None, overrides: Mapping[str, str]
) -> tuple[ConfigDict, TrainState, dict[str, Report]]:
    """Config and state of the run, and what became of the entries."""
    found = read_weights(weights)
    if config is None:
        config = _own_config(pathlib.Path(weights), found)
    elif found.family and not config.family.endswith(f".{found.family}"):
        raise ConfigError(
            f"{weights} is of {found.family}, and the config of {config.family}. Leave out "
            f"--config, or give --config=configs/{found.family}.py."
        )
    official = official_of(config)
    config = configs.override(official.configured(config, found), overrides)
    config, _ = settle(config, jax.device_count())
    family = build(config, "cpu")
    variables, reports = {}, {}
    for name, player in _players(found, family.ema.player).items():
        try:
            variables[name], reports[name] = _variables(
                found.states[name], family.networks[player], official
            )
        except ValueError as error:
            raise ValueError(f"{weights}: {name}: {error}") from error
    return config, _state(family, variables), reports


def _own_config(weights: pathlib.Path, found: Weights) -> ConfigDict:
    """The config that weights come with."""
    if found.family:
        return configs.load(import_module(f"ganjax.families.{found.family}.official").CONFIG)
    beside = (weights if weights.is_dir() else weights.parent) / checkpoint.CONFIG
    if beside.is_file():
        return configs.from_json(beside.read_text())
    raise ConfigError(
        f"{weights} does not tell its architecture, and there is no {checkpoint.CONFIG} beside it. "
        "Give --config=configs/biggan.py:imagenet128, or the config that it was trained with."
    )


def _players(found: Weights, averaged: str) -> dict[str, str]:
    """Our player for each official name in a file."""
    players = {name: averaged if name == "G_ema" else name.lower() for name in found.states}
    if averaged not in players.values():
        raise ValueError(
            f"There is no generator in it, only {', '.join(found.states)}; G_ema or G is wanted."
        )
    return players


def _variables(
    state: Mapping[str, np.ndarray], module: nn.Module, official: Official
) -> tuple[dict[str, Any], Report]:
    """Variables of a network, all of which the state dict fills, and nothing of it is left."""
    state = {name: _number(array) for name, array in state.items()}
    broken = [name for name, array in state.items() if not np.isfinite(array).all()]
    if broken:
        raise ValueError(
            f"{broken[0]} and {len(broken) - 1} more entries have NaN or infinite values. Give "
            "--weights from before it diverged."
        )
    fields = "Fields of the module are set by --config.model and --config.data."
    try:
        variables, report = official.from_official(state, module)
    except ValueError as error:
        raise ValueError(f"it does not fit the config: {error}. {fields}") from error
    if not report.complete:
        raise ValueError(
            f"it has entries that {type(module).__name__} has no place for, so its samples would "
            f"be wrong: {report}\n{fields}"
        )
    return variables, report


def _number(array: np.ndarray) -> np.ndarray:
    """Of whatever precision, as float32, which all parameters are kept in."""
    return array if array.dtype.kind in "biu" else array.astype(np.float32)


def _state(family: Family, variables: Mapping[str, Any]) -> TrainState:
    """The state of step 0 with these variables, by official name."""
    generator = variables.get("G", variables.get("G_ema"))
    players = {"g": generator, "d": variables.get("D")}
    state = family.init(jax.random.key(0), {k: v for k, v in players.items() if v is not None})
    return state.replace(ema=variables.get("G_ema", generator))
