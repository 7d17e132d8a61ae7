"""Official networks from whatever they come in: a snapshot, state dicts, a folder of these."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ganjax.interop.nvidia_pickle import Module, read_snapshot
from ganjax.interop.read import read_state

PLAYERS = ("G", "D", "G_ema")  # generator, discriminator, averaged generator
SUFFIXES = (".pkl", ".pth", ".pt", ".npz", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Networks by their official names, of `PLAYERS`.

    Attributes:
        states: their state dicts.
        modules: what a snapshot tells of their architecture, and of an `augment_pipe`.
        data: what a snapshot tells of its data set.
    """

    states: Mapping[str, Mapping[str, np.ndarray]]
    modules: Mapping[str, Module] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def family(self) -> str | None:
        """The name of the family that a snapshot is of, or None where only a config tells."""
        if not self.modules:
            return None
        synthesis = self.generator.part("synthesis")
        if "motion_encoder" in synthesis.parts:
            return "styleganv"
        return "stylegan3" if "input" in synthesis.parts else "stylegan2"

    @property
    def generator(self) -> Module:
        """The generator that samples."""
        found = self.modules.get("G_ema") or self.modules.get("G")
        if found is None:
            raise ValueError("a snapshot without a generator; expected G_ema or G in it")
        return found


def read_weights(path: str | os.PathLike) -> Weights:
    """The networks of an official file, or of a folder with G.pth, D.pth, G_ema.pth.

    A single .pth, .pt or .npz is of the network that its name begins with, else of the averaged
    generator. So is a .safetensors, but where all its names begin with `G.`, `D.` or `G_ema.`.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: an unknown kind of file, or one that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        files = {name: path / f"{name}.pth" for name in PLAYERS}
        there = {name: file for name, file in files.items() if file.is_file()}
        if not there:
            raise ValueError(f"{path} has none of {', '.join(f'{name}.pth' for name in PLAYERS)}")
        return Weights({name: read_state(file) for name, file in there.items()})
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give --weights the official file")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: official networks come as {', '.join(SUFFIXES)}, or as a folder")
    if path.suffix == ".pkl":
        snapshot = read_snapshot(path)
        modules = snapshot.networks
        states = {name: modules[name].state() for name in PLAYERS if name in modules}
        return Weights(states, modules, snapshot.data)
    return Weights(_split(read_state(path), path))


def _split(state: dict[str, np.ndarray], path: Path) -> dict[str, dict[str, np.ndarray]]:
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in state.items():
        player, _, rest = name.partition(".")
        if player not in PLAYERS:
            named = re.match(r"(G_ema|G|D)(_|$)", path.stem)
            return {named[1] if named else "G_ema": state}
        parts.setdefault(player, {})[rest] = array
    return parts
