"""The comparison with torch-fidelity, as far as it goes without torch-fidelity."""

import importlib

import numpy as np
import pytest
from PIL import Image

fid = importlib.import_module("benchmarks.fid")


def test_a_python_without_torch_fidelity_is_named(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no torch_fidelity' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit, match="no torch-fidelity that works .*Give --torch-python"):
        fid.check_torch_fidelity(str(python))


def test_pictures_are_the_same_every_time_and_differ_between_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fid.make_pictures(tmp_path / name, count=2, side=16)
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*.png"))
    images = [np.asarray(Image.open(tmp_path / "a" / file)) for file in files]
    assert [image.shape for image in images] == [(16, 16, 3)] * 4
    assert len({image.tobytes() for image in images}) == 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_table_says_who_is_faster():
    found = fid.table(
        {
            "pictures": {"real": 4},
            "fid": {"ganjax": 2.0, "torch-fidelity": 2.001},
            "relative_difference": 5e-4,
            "whole_seconds": {"ganjax": 1.0, "torch-fidelity": 3.0},
            "features_per_second": {"ganjax": 8.0, "torch-fidelity": 4.0},
            "all_features_per_second": {"ganjax": [8.0, 9.0], "torch-fidelity": [3.0, 4.0]},
            "ratio": 2.0,
            "repeats": 2,
            "batch": 64,
            "threads": 1,
            "host": "x86_64, 4 cores",
            "load": 0.1,
            "versions": {"jax": "0"},
            "date": "2026-11-21",
        }
    )
    assert "differ by 5.0e-04" in found and "2.00 x as fast" in found
    assert found.splitlines()[2].split() == ["ganjax", "2", "1.0", "8.00", "8.00", "9.00"]
