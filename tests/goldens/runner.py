"""Compares ganjax with golden vectors: every case of a directory, one line each.

A case is built by the adapter of its reference class (`adapters/`), from its name and JSON alone.

The error of an array is max|ours - golden| / max(max|golden|, 1e-6 x the largest of its group), its
group being what shares its key up to the last part of the path (per kind of optimizer moment); that
of a case is the largest of its arrays'. Cases run in float32. Arrays that a case lists as
ill-conditioned there, or whose reference was itself off by a quarter of the tolerance, are compared
in float64 instead, and so are training steps and trajectories as a whole.
"""

import argparse
import dataclasses
import fnmatch
import math
import pathlib
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tests.goldens.adapters import ADAPTERS
from tests.goldens.case import Adapter, Case

TOLERANCE = 1e-4
FLOOR = 1e-6  # of a group's largest value: an array is judged as if it were no smaller

# Cases that no user needs, "<family>/<case>": the reason. At most one in twenty.
WAIVED: dict[str, str] = {}


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a case.

    Attributes:
        case: `<family>/<case>`.
        error: the largest relative error; NaN where the case could not be compared.
        verdict: "ok", "FAIL" or "waived".
        reason: why it failed or is waived; for comparisons, the array that is farthest off.
    """

    case: str
    error: float
    tolerance: float
    verdict: str
    reason: str = ""

    def __str__(self) -> str:
        line = f"{self.case} {self.error:.2e} {self.tolerance:.0e} {self.verdict}"
        return line if self.verdict == "ok" else f"{line} ({self.reason})"


def run(
    directory: pathlib.Path | str,
    families: Sequence[str] | None = None,
    pattern: str = "*",
    *,
    wide: bool = False,
    verbose: bool = False,
) -> Iterator[Result]:
    """Results of the cases of a directory, in the order of their names.

    Args:
        families: folder names; None for all.
        pattern: glob of case names.
        wide: compare everything in float64.
        verbose: print tracebacks of cases that could not be built to stderr.
    """
    for case in cases(pathlib.Path(directory), families, pattern):
        yield _judge(case, wide, verbose)


def cases(
    directory: pathlib.Path, families: Sequence[str] | None = None, pattern: str = "*"
) -> list[Case]:
    """The cases of a directory: every JSON or NPZ file in a folder."""
    found = {
        (path.parent.name, path.stem)
        for suffix in ("json", "npz")
        for path in directory.glob(f"*/*.{suffix}")
    }
    return [
        Case(directory, family, name)
        for family, name in sorted(found)
        if (families is None or family in families) and fnmatch.fnmatchcase(name, pattern)
    ]


def adapter_of(case: Case) -> Adapter | None:
    """By the case's name, else by the reference that it names."""
    own = [adapter for adapter in ADAPTERS if adapter.family == case.family]
    for adapter in own:
        if re.search(adapter.names, case.name):
            return adapter
    reference = case.meta.get("reference", "")
    for adapter in own:
        if re.search(adapter.reference, reference):
            return adapter
    return None


def compare(
    case: Case, wanted: Iterable[str], found: Mapping[str, Any]
) -> tuple[dict[str, float], list[str]]:
    """Relative errors by key, and what cannot be compared."""
    wanted = list(wanted)
    largest: dict[str, float] = {}
    for key in wanted:
        golden = case.stored[key]
        peak = float(np.abs(golden).max()) if golden.size else 0.0
        largest[_group(key)] = max(largest.get(_group(key), 0.0), peak)
    errors: dict[str, float] = {}
    problems: list[str] = []
    for key in wanted:
        golden = case.stored[key].astype(np.float64)
        if key not in found:
            problems.append(f"{key} is not computed")
            continue
        ours = np.asarray(found[key]).astype(np.float64)
        if ours.shape != golden.shape:
            problems.append(f"{key} has shape {ours.shape}, golden {golden.shape}")
            continue
        if not golden.size:
            continue
        scale = max(np.abs(golden).max(), FLOOR * largest[_group(key)], np.finfo(np.float64).tiny)
        error = float(np.abs(ours - golden).max() / scale)
        errors[key] = error if math.isfinite(error) else math.inf
    return errors, problems


def _group(key: str) -> str:
    """`step1/optG exp_avg` for `step1/optG/linear.weight/exp_avg`, `out/feat` for `out/feat/x`."""
    parts = key.split("/")
    if parts[-1] in ("exp_avg", "exp_avg_sq", "step"):
        return "/".join(parts[:-2]) + " " + parts[-1]
    return "/".join(parts[:-1])


def _judge(case: Case, wide: bool, verbose: bool) -> Result:
    label = f"{case.family}/{case.name}"
    try:
        errors, problems = _compare_case(case, wide)
    except Exception as error:  # a case that cannot be built is a result, too
        if verbose:
            traceback.print_exc()
        text = " ".join(str(error).split())
        errors, problems = {}, [f"{type(error).__name__}: {text[:300]}"]
    worst = max(errors, key=errors.__getitem__, default="")
    error = errors.get(worst, math.nan)
    if label in WAIVED:
        return Result(label, error, TOLERANCE, "waived", WAIVED[label])
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        return Result(label, math.nan, TOLERANCE, "FAIL", problems[0] + more)
    if not errors:
        return Result(label, error, TOLERANCE, "FAIL", "there is nothing to compare")
    return Result(label, error, TOLERANCE, "ok" if error <= TOLERANCE else "FAIL", worst)


def _compare_case(case: Case, wide: bool) -> tuple[dict[str, float], list[str]]:
    adapter = adapter_of(case)
    if adapter is None:
        return {}, [f"no adapter for reference {case.meta.get('reference', '')[:100]!r}"]
    wanted = adapter.wanted(case)
    delicate = set(wanted if wide or adapter.wide else _ill_conditioned(case, wanted))
    errors: dict[str, float] = {}
    problems: list[str] = []
    for dtype, keys in (
        (np.float32, [key for key in wanted if key not in delicate]),
        (np.float64, [key for key in wanted if key in delicate]),
    ):
        if not keys:
            continue
        with jax.enable_x64(dtype is np.float64), jax.default_matmul_precision("highest"):
            found = adapter.compute(dataclasses.replace(case, dtype=dtype))
        new_errors, new_problems = compare(case, keys, found)
        errors |= new_errors
        problems += new_problems
    return errors, problems


def _ill_conditioned(case: Case, wanted: list[str]) -> list[str]:
    listed = set(case.meta.get("ill_conditioned_in_float32", ()))
    known = case.meta.get("float32_ref_err", {})
    return [key for key in wanted if key in listed or known.get(key, 0.0) > TOLERANCE / 4]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if no case fails, 1 if one does, 2 if there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.goldens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "directory", metavar="DIR", help="folders of cases, <family>/<case>.npz and .json"
    )
    parser.add_argument("--family", help="folder names, comma-separated (default: all)")
    parser.add_argument("--case", default="*", metavar="GLOB", help="case names (default: all)")
    parser.add_argument("--float64", action="store_true", help="compare everything in float64")
    parser.add_argument("--verbose", action="store_true", help="tracebacks of failed cases")
    options = parser.parse_args(arguments)
    families = options.family.split(",") if options.family else None
    verdicts = []
    for result in run(
        options.directory,
        families,
        options.case,
        wide=options.float64,
        verbose=options.verbose,
    ):
        print(result, flush=True)
        verdicts.append(result.verdict)
    if not verdicts:
        print(
            f"no case in {options.directory} for --family={options.family} --case={options.case}",
            file=sys.stderr,
        )
        return 2
    return 1 if "FAIL" in verdicts else 0
