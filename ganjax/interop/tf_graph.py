"""Constants of a frozen TensorFlow graph (`GraphDef`, *.pb), without TensorFlow.

Only the fields that name and hold constants are decoded, by the rules of the Protocol Buffers wire
format; nothing of the graph is run. Field numbers: tensorflow/core/framework/{graph, node_def,
attr_value, tensor, tensor_shape}.proto.
"""

import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
}
# Where a TensorProto keeps numbers that are not in one block of bytes.
LISTS = {1: 5, 2: 6, 3: 7, 9: 10}


def read_graph(path: str | Path) -> dict[str, np.ndarray]:
    """Constants by the names of their nodes; texts and rarer types are left out.

    Args:
        path: a .pb, or a .tgz or .tar.gz that holds one.

    Raises:
        ValueError: not a graph, or a damaged one.
    """
    path = Path(path)
    data = path.read_bytes() if path.suffix == ".pb" else _from_archive(path)
    found: dict[str, np.ndarray] = {}
    try:
        for number, node in _fields(data):
            if number == 1 and isinstance(node, bytes):
                found.update(_constant(node))
    except (IndexError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a readable TensorFlow graph ({error})") from error
    if not found:
        raise ValueError(f"{path}: holds no constants; expected a frozen graph (GraphDef)")
    return found


def _from_archive(path: Path) -> bytes:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".pb") else None
                if file is not None:
                    return file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable archive ({error})") from error
    raise ValueError(f"{path}: holds no .pb file")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of each field of a message: integers, or bytes for all else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + length > len(data):
            raise ValueError("the file is cut off")
        yield number, data[at : at + length]
        at += length


def _last(message: bytes, number: int, default: bytes = b"") -> bytes:
    """The last field of a number, which by the format overrides those before it."""
    for found, value in _fields(message):
        if found == number and isinstance(value, bytes):
            default = value
    return default


def _constant(node: bytes) -> dict[str, np.ndarray]:
    if _last(node, 2) != b"Const":
        return {}
    for number, value in _fields(node):
        if number == 5 and isinstance(value, bytes) and _last(value, 1) == b"value":
            array = _tensor(_last(_last(value, 2), 8))
            return {} if array is None else {_last(node, 1).decode(): array}
    return {}


def _tensor(message: bytes) -> np.ndarray | None:
    fields = list(_fields(message))
    kind = next((value for number, value in fields if number == 1), 0)
    if not isinstance(kind, int) or kind not in DTYPES:
        return None
    dtype = DTYPES[kind]
    shape = []
    for number, dimension in _fields(_last(message, 2)):
        if number == 2 and isinstance(dimension, bytes):
            sizes = [value for field, value in _fields(dimension) if field == 1]
            shape.append(int(sizes[-1]) if sizes else 0)
    content = _last(message, 4)
    if content:
        return np.frombuffer(content, dtype).reshape(shape).copy()
    numbers = [value for number, value in fields if number == LISTS[kind]]
    values = np.array([number for value in numbers for number in _numbers(value, dtype)], dtype)
    # A list that ends early goes on with its last number.
    rest = math.prod(shape) - values.size
    if rest < 0 or not values.size:
        raise ValueError(f"{values.size} numbers do not fill the shape {shape}")
    return np.concatenate((values, np.full(rest, values[-1], dtype))).reshape(shape)


def _numbers(value: int | bytes, dtype: np.dtype) -> list[Any]:
    """One number, or many packed into bytes."""
    if isinstance(value, int):
        return [_signed(value)]
    if dtype.kind == "f":
        return np.frombuffer(value, dtype).tolist()
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(_signed(number))
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
