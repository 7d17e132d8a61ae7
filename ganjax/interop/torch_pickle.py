"""PyTorch checkpoint files (`torch.save`) as NumPy arrays, without PyTorch and without trust.

Such a file is a pickle, and unpickling calls whatever functions the pickle names. Here only the few
that make up tensors and dictionaries are known, each replaced by code of this file; any other name
is refused, so a file cannot run code. Both layouts are read: the zip archive of PyTorch 1.6 and
later, and the stream of pickles before it. Of a TorchScript archive (`torch.jit.save`) the weights
are read as a state dict; the programs in it are not even looked at.
"""

import collections
import dataclasses
import io
import math
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


def read_pth(path: str | Path) -> Any:
    """What `torch.load` would give, with NumPy arrays in place of tensors.

    Raises:
        ValueError: the pickle names something other than tensors and plain containers, or the file
            is damaged or no PyTorch checkpoint.
    """
    with open(path, "rb") as file:
        try:
            if zipfile.is_zipfile(file):
                return _read_zip(file)
            file.seek(0)
            return _read_legacy(file)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except (
            pickle.UnpicklingError,
            zipfile.BadZipFile,
            EOFError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            struct.error,
            RecursionError,
        ) as error:
            raise ValueError(
                f"{path}: not a readable PyTorch checkpoint ({type(error).__name__}: {error});"
                " expected a file written by torch.save"
            ) from error


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype


@dataclasses.dataclass
class _Tensor:
    """A view of a storage, whose contents may not have been read yet."""

    storage: np.ndarray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        """Numbers from the file are not trusted: a view outside of its storage is refused."""
        numbers = (self.offset, *self.shape, *self.strides)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        sound = (
            isinstance(self.storage, np.ndarray)
            and len(self.shape) == len(self.strides)
            and all(isinstance(number, int) and number >= 0 for number in numbers)
            and (0 in self.shape or last < self.storage.size)
            and math.prod(self.shape) <= max(self.storage.size, 1)
        )
        if not sound:
            raise ValueError(
                f"a tensor of shape {self.shape}, strides {self.strides} and offset {self.offset}"
                " does not fit its storage; the file is damaged"
            )

    def array(self) -> np.ndarray:
        if 0 in self.shape:
            return np.zeros(self.shape, self.storage.dtype)
        itemsize = self.storage.itemsize
        view = np.lib.stride_tricks.as_strided(
            self.storage[self.offset :],
            self.shape,
            [stride * itemsize for stride in self.strides],
            writeable=False,
        )
        return view.copy()


class _Scripted:
    """An object of a TorchScript program: its attributes, as the pickle sets them."""


def _same(value: Any, *unused: Any) -> Any:
    return value


def _rebuild_tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *unused: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: _Tensor, *unused: Any) -> _Tensor:
    return data


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in STORAGES.items()},
    # Typed containers of TorchScript, already built as plain ones.
    **{
        ("torch.jit._pickle", name): _same
        for name in (
            "build_intlist",
            "build_doublelist",
            "build_boollist",
            "build_tensorlist",
            "restore_type_tag",
        )
    },
}


class _Unpickler(pickle.Unpickler):
    """Resolves the names in `KNOWN`, and storages through `storage(dtype, key, elements)`."""

    def __init__(self, file: Any, storage: Callable[[np.dtype, str, int], np.ndarray]):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Scripted
        if (module, name) not in KNOWN:
            raise ValueError(
                f"its pickle asks for {module}.{name}, which is not part of a state dict, and"
                " nothing of it was run; save the plain weights instead:"
                " torch.save(model.state_dict(), path)"
            )
        return KNOWN[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage_type, key, _, elements, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise ValueError(f"unknown kind of stored object {pid!r}")
        return self._storage(storage_type.dtype, str(key), elements)


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("a zip file without a data.pkl of its own is no PyTorch checkpoint")
        root = pickles[0].removesuffix("data.pkl")
        order: str = sys.byteorder if f"{root}byteorder" not in names else ""
        order = order or archive.read(f"{root}byteorder").decode()
        if order != "little":
            raise ValueError(f"byte order {order!r} is not supported, only 'little'")
        storages: dict[str, np.ndarray] = {}

        def storage(dtype: np.dtype, key: str, elements: int) -> np.ndarray:
            if key not in storages:
                storages[key] = np.frombuffer(archive.read(f"{root}data/{key}"), dtype)
            if storages[key].size < elements:
                raise ValueError(f"storage {key} is cut off")
            return storages[key]

        return _arrays(_Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load())


def _read_legacy(file: BinaryIO) -> Any:
    storages: dict[str, np.ndarray] = {}
    size = file.seek(0, io.SEEK_END)
    file.seek(0)

    def storage(dtype: np.dtype, key: str, elements: int) -> np.ndarray:
        if elements * dtype.itemsize > size:
            raise ValueError(f"storage {key} is larger than the file")
        return storages.setdefault(key, np.zeros(elements, dtype))

    def load() -> Any:
        return _Unpickler(file, storage).load()

    if load() != LEGACY_MAGIC or load() != LEGACY_PROTOCOL:
        raise ValueError("not written by torch.save")
    if not load().get("little_endian", True):
        raise ValueError("big-endian files are not supported")
    content = load()
    # The contents of the storages follow the pickle that refers to them.
    for key in load():
        (elements,) = struct.unpack("<q", file.read(8))
        target = storages[str(key)]
        if elements != target.size:
            raise ValueError(f"storage {key} has {elements} elements, expected {target.size}")
        data = file.read(target.nbytes)
        if len(data) < target.nbytes:
            raise ValueError(f"storage {key} is cut off")
        target[:] = np.frombuffer(data, target.dtype)
    return _arrays(content)


def _arrays(content: Any) -> Any:
    if isinstance(content, _Tensor):
        return content.array()
    if isinstance(content, _Scripted):
        return dict(_state_dict(content, ""))
    if isinstance(content, Mapping):
        return {key: _arrays(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_arrays(value) for value in content)
    return content


def _state_dict(module: _Scripted, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors of a scripted module by the names of its state dict; no other attributes."""
    for name, value in vars(module).items():
        if isinstance(value, _Tensor):
            yield prefix + name, value.array()
        elif isinstance(value, _Scripted):
            yield from _state_dict(value, f"{prefix}{name}.")
