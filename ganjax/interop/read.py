"""Weights from files of other libraries, as NumPy arrays by name. No file can run code."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ganjax.interop.tf_graph import read_graph
from ganjax.interop.torch_pickle import read_pth

SUFFIXES = (".pth", ".pt", ".bin", ".npz", ".safetensors", ".pb", ".tgz")


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays of a file by name; those of nested dictionaries as `outer/inner`.

    A TorchScript archive gives its state dict, a TensorFlow graph (.pb, or a .tgz of one) its
    constants. Numbers count as arrays; whatever else a PyTorch file holds (texts) is left out.

    Raises:
        ValueError: an unknown kind of file, or one that holds more than arrays.
    """
    path = Path(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return dict(_flat(read_pth(path), ""))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    if path.suffix in (".pb", ".tgz"):
        return read_graph(path)
    raise ValueError(f"{path}: unknown kind of file {path.suffix!r}; known are {SUFFIXES}")


def _flat(content: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _flat(value, f"{prefix}/{index}" if prefix else str(index))
    elif isinstance(content, np.ndarray | bool | int | float):
        yield prefix, np.asarray(content)
