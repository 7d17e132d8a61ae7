"""Arrays of ours as entries of a foreign state dict, and the way back.

A map of checkpoints is a list of `Entry`; `families/*/official.py` make theirs by rules over paths.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ganjax.interop.report import Report
from ganjax.layers.initializers import init_on_host

Path = tuple[str, ...]
State = Mapping[str, np.ndarray]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # of a module: arguments and keyword arguments


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our arrays as entries of an official state dict.

    Attributes:
        path: collection and names of ours.
        names: the official names; the array is made of all of them.
        shape: of each official entry.
        decode: from the official arrays, in the order of `names`, to ours.
        encode: the inverse.
    """

    path: Path
    names: tuple[str, ...]
    shape: tuple[int, ...]
    decode: Callable[[list[np.ndarray]], np.ndarray]
    encode: Callable[[np.ndarray], list[np.ndarray]]


def shapes_of(module: nn.Module, inputs: Inputs) -> dict[Path, tuple[int, ...]]:
    """Of a module's variables."""
    args, kwargs = inputs
    shapes = jax.eval_shape(
        lambda *inputs: module.init(jax.random.key(0), *inputs, **kwargs), *args
    )
    return {path: leaf.shape for path, leaf in flatten_dict(dict(shapes)).items()}


def read(
    state: State,
    module: nn.Module,
    wanted: Sequence[Entry],
    inputs: Inputs,
    fields: str | None,
    *,
    constants: Mapping[str, np.ndarray] | None = None,
    ignored: Callable[[str], Any] = lambda name: False,
    named: Callable[[str], str] = str,
    strict: bool = True,
) -> tuple[dict[str, Any], Report]:
    """Variables (NumPy arrays) of a module from an official state dict.

    Args:
        wanted: where it keeps them.
        inputs: of the module.
        fields: of the module, that decide over shapes: for errors.
        constants: entries that are fields of the module, as filters are: compared with.
        ignored: whether a name that is left carries nothing that we keep.
        named: the file's name of an entry, where `state` has its tensors in parts.
        strict: an error if an entry is missing; False: its place keeps an initial value.

    Raises:
        ValueError: entries are missing, or one has a shape or a constant that does not fit the
            module.
    """
    state = {name: np.asarray(array) for name, array in state.items()}
    filled, missing = fill(state, wanted, fields)
    matched = []
    for name, own in (constants or {}).items():
        if name not in state:
            continue
        matched.append(name)
        if state[name].shape != own.shape or not np.allclose(state[name], own, atol=1e-6):
            raise ValueError(
                f"{name} is the constant {state[name].tolist()}, the module's is {own.tolist()};"
                f" {_remedy(fields)}"
            )
    report = report_of(state, filled, missing, ignored, matched).renamed(named)
    args, kwargs = inputs
    initial = functools.partial(init_on_host, module, jax.random.key(0), *args, **kwargs)
    return complete(filled, report, fields, None if strict else initial), report


def fill(
    state: State, wanted: Sequence[Entry], fields: str | None = None
) -> tuple[dict[Entry, np.ndarray], list[str]]:
    """Our arrays from an official state dict, and the official names that it lacks.

    Args:
        fields: of the module, that decide over shapes: for the error; None: it has none to set.

    Raises:
        ValueError: an entry has another shape than wanted.
    """
    filled: dict[Entry, np.ndarray] = {}
    missing: list[str] = []
    for entry in wanted:
        absent = [name for name in entry.names if name not in state]
        missing += absent
        if absent:
            continue
        for name in entry.names:
            if state[name].shape != entry.shape:
                raise ValueError(
                    f"{name} has shape {state[name].shape}, the module wants {entry.shape} for"
                    f" {'/'.join(entry.path)}; {_remedy(fields)}"
                )
        filled[entry] = np.array(entry.decode([state[name] for name in entry.names]), order="C")
    return filled, missing


def report_of(
    state: State,
    filled: Mapping[Entry, np.ndarray],
    missing: Sequence[str],
    ignored: Callable[[str], Any] = lambda name: False,
    others: Sequence[str] = (),
) -> Report:
    """What became of the official names.

    Args:
        filled, missing: what `fill` gave.
        ignored: whether a name that is left carries nothing that we keep.
        others: names that were matched without becoming arrays of ours.
    """
    matched = [*(name for entry in filled for name in entry.names), *others]
    left = sorted(set(state) - set(matched))
    return Report(
        matched=tuple(matched),
        missing=tuple(missing),
        unexpected=tuple(name for name in left if not ignored(name)),
        ignored=tuple(name for name in left if ignored(name)),
    )


def complete(
    filled: Mapping[Entry, np.ndarray],
    report: Report,
    fields: str | None,
    initial: Callable[[], Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Variables from our arrays.

    Args:
        fields: as of `fill`.
        initial: makes the variables that keep their initial value where the state dict lacks
            them; None: an error if it lacks any.

    Raises:
        ValueError: entries are missing.
    """
    start: dict[Path, Any] = {}
    if report.missing:
        if initial is None:
            raise ValueError(
                f"the state dict does not fit the module: {report}\n{_remedy(fields)}"
                + (", or strict=False to keep initial values for what is missing" if fields else "")
            )
        start = flatten_dict(dict(initial()))
    return unflatten_dict(start | {entry.path: array for entry, array in filled.items()})


def _remedy(fields: str | None) -> str:
    if fields is None:
        return "the file is of another network or configuration"
    return f"set the module's fields ({fields}) to those of the checkpoint"


def collect(variables: Mapping[str, Any], wanted: Sequence[Entry]) -> dict[str, np.ndarray]:
    """The official entries of our arrays, as far as there are any."""
    flat = flatten_dict(dict(variables))
    state: dict[str, np.ndarray] = {}
    for entry in wanted:
        if entry.path in flat:
            arrays = entry.encode(np.asarray(flat[entry.path]))
            state.update(zip(entry.names, arrays, strict=True))
    return state


def plain(path: Path, name: str, shape: tuple[int, ...]) -> Entry:
    """The same array under another name."""
    return Entry(path, (name,), shape, lambda arrays: arrays[0], lambda array: [array])
