"""Official networks, whatever they come in."""

import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy

from ganjax.interop.weights import read_weights

DATA = pathlib.Path(__file__).parent / "data"


def test_a_snapshot_tells_its_family():
    found = read_weights(DATA / "ada_conditional.pkl")
    assert list(found.states) == ["G", "D", "G_ema"]
    assert list(found.modules) == ["G", "D", "G_ema", "augment_pipe"]
    assert found.family == "stylegan2" and found.generator is found.modules["G_ema"]
    assert len(found.states["G"]) == 58 and found.data["path"] == "./data.zip"


def test_a_folder_of_state_dicts(tmp_path):
    for name in ("G", "G_ema", "optimizer"):
        shutil.copy(DATA / "zip.pth", tmp_path / f"{name}.pth")
    found = read_weights(tmp_path)
    assert list(found.states) == ["G", "G_ema"] and found.family is None
    with pytest.raises(ValueError, match=r"has none of G\.pth, D\.pth, G_ema\.pth"):
        read_weights(DATA.parent)


@pytest.mark.parametrize(
    ("file", "names", "wanted"),
    [
        ("a.safetensors", ["G.w", "G_ema.w"], {"G": ["w"], "G_ema": ["w"]}),
        ("a.safetensors", ["G.w", "other"], {"G_ema": ["G.w", "other"]}),
        ("G_ema_best0.safetensors", ["w"], {"G_ema": ["w"]}),
        ("G_best0.safetensors", ["w"], {"G": ["w"]}),
        ("D.safetensors", ["w"], {"D": ["w"]}),
        ("Dogs.safetensors", ["w"], {"G_ema": ["w"]}),
    ],
)
def test_whose_a_file_is(tmp_path, file, names, wanted):
    safetensors.numpy.save_file({name: np.ones(1) for name in names}, tmp_path / file)
    found = read_weights(tmp_path / file)
    assert {name: sorted(state) for name, state in found.states.items()} == wanted


def test_what_it_does_not_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pkl does not exist"):
        read_weights(tmp_path / "none.pkl")
    (tmp_path / "a.onnx").touch()
    with pytest.raises(
        ValueError, match=r"come as \.pkl, \.pth, \.pt, \.npz, \.safetensors, or as a"
    ):
        read_weights(tmp_path / "a.onnx")
