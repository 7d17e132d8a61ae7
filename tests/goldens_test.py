"""The golden cases of this checkout, and the runner itself."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.goldens.adapters import ADAPTERS
from tests.goldens.runner import WAIVED, cases, compare, main, run

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
GOLDENS = ROOT / "tests" / "goldens"
CASES = [
    f"{case.family}/{case.name}"
    for case in cases(GOLDENS, sorted({adapter.family for adapter in ADAPTERS}))
]


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    family, name = case.split("/")
    (result,) = run(GOLDENS, [family], name)
    assert result.verdict in ("ok", "waived"), str(result)


def test_few_are_waived():
    assert len(WAIVED) <= len(CASES) / 20


@pytest.fixture
def copy(tmp_path):
    """A directory with one small case; `change(key, f)` rewrites an array of it."""
    (tmp_path / "biggan").mkdir()
    for suffix in ("npz", "json"):
        shutil.copy(GOLDENS / "biggan" / f"ema_rule.{suffix}", tmp_path / "biggan")

    def change(key, f):
        path = tmp_path / "biggan" / "ema_rule.npz"
        arrays = dict(np.load(path))
        arrays[key] = f(arrays[key])
        np.savez(path, **arrays)

    return tmp_path, change


def test_a_case_that_is_off_by_more_than_the_tolerance_fails(copy, capsys):
    directory, change = copy
    key = "out/target_step4_itr5/weight"
    change(key, lambda array: array + 0.9e-4 * np.abs(array).max())
    assert main([str(directory)]) == 0
    assert capsys.readouterr().out.startswith("biggan/ema_rule 9.0")
    change(key, lambda array: array + 0.2e-4 * np.abs(array).max())
    assert main([str(directory)]) == 1
    assert capsys.readouterr().out.endswith(f"e-04 1e-04 FAIL ({key})\n")


def test_other_numbers_under_the_same_name(copy):
    directory, _ = copy
    path = directory / "biggan" / "ema_rule.json"
    meta = json.loads(path.read_text())
    meta["call"]["decay"] = 0.8
    path.write_text(json.dumps(meta))
    (result,) = run(directory)
    assert result.verdict == "FAIL"


def test_not_a_number_fails(copy):
    directory, change = copy
    change("in/source_step4", lambda array: array * np.nan)
    (result,) = run(directory)
    assert (result.verdict, result.error) == ("FAIL", np.inf)


def test_what_is_not_computed_fails(copy):
    directory, change = copy
    change("in/init", lambda array: array)
    arrays = dict(np.load(directory / "biggan" / "ema_rule.npz"))
    np.savez(directory / "biggan" / "ema_rule.npz", **arrays, **{"out/surprise": np.ones(2)})
    (result,) = run(directory)
    assert (result.verdict, result.reason) == ("FAIL", "out/surprise is not computed")


def test_a_case_that_cannot_be_built_fails_with_the_reason(copy):
    directory, _ = copy
    for suffix in ("npz", "json"):
        (directory / "biggan" / f"ema_rule.{suffix}").rename(directory / "biggan" / f"x.{suffix}")
    path = directory / "biggan" / "x.json"
    meta = json.loads(path.read_text())
    # A name that no adapter has: the reference tells.
    assert next(run(directory)).verdict == "ok"
    path.write_text(json.dumps({**meta, "reference": "nobody"}))
    assert "no adapter for reference 'nobody'" in str(next(run(directory)))
    path.write_text(json.dumps({**meta, "call": {}}))
    assert "KeyError: 'decay'" in str(next(run(directory)))
    path.unlink()
    assert "FAIL (FileNotFoundError" in str(next(run(directory)))


def test_small_arrays_are_judged_by_the_largest_of_their_group(copy):
    directory, _ = copy
    (case,) = cases(directory)
    golden = {"out/a": np.array([1.0]), "out/b": np.array([1e-9]), "other/b": np.array([1e-9])}
    case.__dict__["stored"] = golden
    found = {"out/a": 1.0, "out/b": 2e-9, "other/b": 2e-9}
    errors, problems = compare(case, golden, {key: np.array([v]) for key, v in found.items()})
    assert not problems
    assert errors["out/b"] == pytest.approx(1e-9 / 1e-6)
    assert errors["other/b"] == pytest.approx(1.0)


def test_command_line(copy):
    directory, _ = copy
    command = [sys.executable, "-m", "tests.goldens", str(directory), "--family", "biggan"]
    done = subprocess.run([*command, "--case", "ema*"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    label, error, tolerance, verdict = done.stdout.split()
    assert (label, tolerance, verdict) == ("biggan/ema_rule", "1e-04", "ok")
    assert float(error) < 1e-6
    none = subprocess.run([*command, "--case", "no"], cwd=ROOT, capture_output=True, text=True)
    assert none.returncode == 2 and "no case" in none.stderr
