"""PyTorch checkpoint files (`torch.save`) as NumPy arrays, without PyTorch and without trust.

Such a file is a pickle, and unpickling calls whatever functions the pickle names. Here only the few
that make up tensors and dictionaries are known, each replaced by code of this file; any other name
is refused, so a file cannot run code. Both layouts are read: the zip archive of PyTorch 1.6 and
later, and the stream of pickles before it. Of a TorchScript archive (`torch.jit.save`) the weights
are read as a state dict; the programs in it are not even looked at.
"""

import dataclasses
import io
import math
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ganjax.interop.inert import DAMAGE, Constructor, Dict, Inert, Sealed, Unpickler

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
            return read_legacy(file)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except (zipfile.BadZipFile, *DAMAGE) as error:
            raise ValueError(
                f"{path}: not a readable PyTorch checkpoint ({type(error).__name__}: {error});"
                " expected a file written by torch.save"
            ) from error


@dataclasses.dataclass(slots=True)
class _StorageType(Inert):
    dtype: np.dtype


@dataclasses.dataclass(slots=True)
class Storage(Inert):
    """Numbers of tensors, which may not have been read yet."""

    array: np.ndarray


@dataclasses.dataclass(slots=True)
class Tensor(Inert):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        """Numbers from the file are not trusted: a view outside of its storage is refused."""
        numbers = (self.offset, *self.shape, *self.strides)
        size = self.storage.array.size
        sound = (
            len(self.shape) == len(self.strides)
            and all(isinstance(number, int) and number >= 0 for number in numbers)
            and (0 in self.shape or self._last() < size)
            and math.prod(self.shape) <= max(size, 1)
        )
        if not sound:
            raise ValueError(
                f"a tensor of shape {self.shape}, strides {self.strides} and offset {self.offset}"
                " does not fit its storage; the file is damaged"
            )

    def _last(self) -> int:
        """Where its last number is."""
        return self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))

    def numbers(self) -> np.ndarray:
        """A copy of its numbers."""
        storage = self.storage.array
        if 0 in self.shape:
            return np.zeros(self.shape, storage.dtype)
        view = np.lib.stride_tricks.as_strided(
            storage[self.offset :],
            self.shape,
            [stride * storage.itemsize for stride in self.strides],
            writeable=False,
        )
        return view.copy()


class _Scripted(metaclass=Sealed):
    """An object of a TorchScript program: its attributes, as the pickle sets them."""


def _same(value: Any, *unused: Any) -> Any:
    return value


def _rebuild_tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *unused: Any
) -> Tensor:
    return Tensor(storage, offset, tuple(size), tuple(stride))


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Constructor(Dict),
    ("torch", "Size"): Constructor(tuple),
    ("torch._utils", "_rebuild_tensor"): Constructor(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Constructor(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Constructor(_same),
    **{("torch", name): _StorageType(dtype) for name, dtype in STORAGES.items()},
    # Typed containers of TorchScript, already built as plain ones.
    **{
        ("torch.jit._pickle", name): Constructor(_same)
        for name in (
            "build_intlist",
            "build_doublelist",
            "build_boollist",
            "build_tensorlist",
            "restore_type_tag",
        )
    },
}


class _Unpickler(Unpickler):
    """Takes storages from `storage(dtype, key, elements)`."""

    def __init__(self, file: Any, storage: Callable[[np.dtype, str, int], Storage]):
        super().__init__(
            file,
            KNOWN,
            "a state dict has none of it: save the plain weights, torch.save(model.state_dict(),"
            " path)",
        )
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Scripted
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage_type, key, _, elements, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise ValueError(f"unknown kind of stored object {pid!r}")
        return self._storage(storage_type.dtype, str(key), elements)


def _read_zip(file: io.BufferedIOBase) -> Any:
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
        storages: dict[str, Storage] = {}

        def storage(dtype: np.dtype, key: str, elements: int) -> Storage:
            if key not in storages:
                data = archive.read(f"{root}data/{key}")
                storages[key] = Storage(np.frombuffer(data, dtype))
            if storages[key].array.size < elements:
                raise ValueError(f"storage {key} is cut off")
            return storages[key]

        return arrays(_Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load())


def read_legacy(file: io.BufferedIOBase) -> Any:
    """What the stream of pickles before PyTorch 1.6 holds.

    Raises:
        ValueError, or one of `inert.DAMAGE`: it cannot be read.
    """
    storages: dict[str, Storage] = {}
    size = file.seek(0, io.SEEK_END)
    file.seek(0)

    def storage(dtype: np.dtype, key: str, elements: int) -> Storage:
        if elements * dtype.itemsize > size:
            raise ValueError(f"storage {key} is larger than the file")
        return storages.setdefault(key, Storage(np.zeros(elements, dtype)))

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
        target = storages[str(key)].array
        if elements != target.size:
            raise ValueError(f"storage {key} has {elements} elements, expected {target.size}")
        data = file.read(target.nbytes)
        if len(data) < target.nbytes:
            raise ValueError(f"storage {key} is cut off")
        target[:] = np.frombuffer(data, target.dtype)
    return arrays(content)


def arrays(content: Any) -> Any:
    """Plain containers with arrays in place of tensors and storages."""
    if isinstance(content, Tensor):
        return content.numbers()
    if isinstance(content, Storage):
        return content.array
    if isinstance(content, _Scripted):
        return dict(_state_dict(content, ""))
    if isinstance(content, Mapping):
        return {key: arrays(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(arrays(value) for value in content)
    return content


def _state_dict(module: _Scripted, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors of a scripted module by the names of its state dict; no other attributes."""
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value.numbers()
        elif isinstance(value, _Scripted):
            yield from _state_dict(value, f"{prefix}{name}.")
