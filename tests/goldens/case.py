"""One golden case: what a reference was given, and what it gave."""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
# Of the JSON of a case that counts parameters.
COUNTS = ("total_parameters", "expert_parameters", "router_parameters", "mtm_parameters")


@dataclasses.dataclass(frozen=True)
class Case:
    """`<directory>/<family>/<name>.npz` and `.json`.

    Attributes:
        dtype: that floating-point arrays are read as: the precision of the comparison.
    """

    directory: pathlib.Path
    family: str
    name: str
    dtype: type = np.float32

    @functools.cached_property
    def meta(self) -> dict[str, Any]:
        """The JSON."""
        return json.loads((self.directory / self.family / f"{self.name}.json").read_text())

    @functools.cached_property
    def stored(self) -> Arrays:
        """Every array as it is in the file; a case without one has its numbers in the JSON."""
        file = self.directory / self.family / f"{self.name}.npz"
        if not file.exists() and "experiments" in self.meta:
            drawn = [np.array(experiment["first20"]) for experiment in self.meta["experiments"]]
            return {f"{number}/first20": array for number, array in enumerate(drawn)}
        if not file.exists() and "shapes" in self.meta:
            counts = {key: np.array(self.meta[key]) for key in self.meta if key in COUNTS}
            parts = self.meta["top_level"] | {
                f"shape {k}": v for k, v in self.meta["shapes"].items()
            }
            return counts | {name: np.array(value) for name, value in parts.items()}
        with np.load(file) as archive:
            return {key: archive[key] for key in archive.files}

    @property
    def kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the reference."""
        return self.meta.get("kwargs", {})

    @property
    def call(self) -> dict[str, Any]:
        """Arguments of the reference's call."""
        return self.meta.get("call", {})

    @property
    def wide(self) -> bool:
        """The comparison is in float64."""
        return self.dtype is np.float64

    def __contains__(self, key: str) -> bool:
        return key in self.stored

    def __getitem__(self, key: str) -> np.ndarray:
        """An array in the precision of the comparison; integers as int32."""
        array = self.stored[key]
        return array.astype(self.dtype if np.issubdtype(array.dtype, np.floating) else np.int32)

    def images(self, key: str) -> np.ndarray:
        """[n, c, h, w] as [n, h, w, c]."""
        return self[key].transpose(0, 2, 3, 1)

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose keys start with a prefix, by the rest of the key."""
        return {
            key.removeprefix(prefix): self[key] for key in self.stored if key.startswith(prefix)
        }


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How ganjax does what one class of the reference does.

    Attributes:
        family: folder of the cases.
        names: regular expression of case names.
        reference: regular expression of the JSON's `reference`, tried if no name matches.
        compute: from a case to what ganjax gives, by the case's keys; more keys do no harm.
        wide: compare in float64 from the start: training steps, whose optimizer turns the rounding
            of a zero gradient into a full step.
        given: regular expression of the keys that are inputs.
    """

    family: str
    names: str
    reference: str
    compute: Callable[[Case], Mapping[str, Any]]
    wide: bool = False
    given: str = r"^(param|in)/"

    def wanted(self, case: Case) -> list[str]:
        """Keys of the case to be compared."""
        return [key for key in case.stored if not re.search(self.given, key)]
