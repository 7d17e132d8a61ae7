"""Files of weights by suffix."""

import pathlib

import numpy as np
import pytest
import safetensors.numpy

from ganjax.interop.read import read_state

DATA = pathlib.Path(__file__).parent / "data"
STATE = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.int64)}


def same(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_npz_and_safetensors(tmp_path):
    np.savez(tmp_path / "state.npz", **STATE)
    safetensors.numpy.save_file(STATE, tmp_path / "state.safetensors")
    same(read_state(tmp_path / "state.npz"), STATE)
    same(read_state(str(tmp_path / "state.safetensors")), STATE)


def test_nested_names_of_pth():
    state = read_state(DATA / "zip.pth")
    assert state["linear/weight"].shape == (3, 2)
    assert state["steps"] == 7


def test_npz_with_pickled_objects_is_refused(tmp_path):
    np.savez(tmp_path / "state.npz", evil=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_state(tmp_path / "state.npz")


def test_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"unknown kind of file '\.ckpt'"):
        read_state(tmp_path / "state.ckpt")
