"""Statistics of real sets, kept by what they are the statistics of.

The key names the content (a source's fingerprint), the protocol and the network's weights: when
one of them changes so does the file's name. A file holds its key and a checksum; one that was cut
short, altered or made for something else is noticed, said so, and made anew.
"""

import hashlib
import json
import os
import pathlib
import re
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ganjax.metrics.hosts import all_agree

VERSION = 1  # of what the numbers mean; files of other versions are left alone
_KEY, _CHECKSUM = "key.json", "sha256"

Arrays = Mapping[str, np.ndarray]


def cached(
    directory: str | pathlib.Path,
    source: str,
    protocol: Mapping[str, Any],
    weights: str,
    build: Callable[[], Arrays],
) -> dict[str, np.ndarray]:
    """Arrays from their file, or else made and kept.

    Every process calls this: unless all of them have the file, all of them build, since building
    is work that they share. Each writes what it did not have, so that hosts with disks of their
    own find it, too.

    Args:
      directory: made if need be.
      source: fingerprint of the samples: changes when they or their order do.
      protocol: everything else that the numbers depend on (split, counts, resize, layer, seed ...),
        as JSON takes it.
      weights: hash of the feature network's weights.
      build: makes the arrays, such as `Moments.to_arrays` or features.

    Raises:
      ValueError: an empty fingerprint or hash, or a protocol that JSON does not take.
    """
    path, key = path_of(directory, source, protocol, weights)
    kept = _read(path, key)
    if all_agree(kept is not None):
        assert kept is not None
        return kept
    arrays = {name: np.asarray(array) for name, array in build().items()}
    if kept is None:
        try:
            _write(path, key, arrays)
        except OSError as error:
            warnings.warn(f"cannot keep {path}: {error}; it will be made again", stacklevel=2)
    return arrays


def path_of(
    directory: str | pathlib.Path, source: str, protocol: Mapping[str, Any], weights: str
) -> tuple[pathlib.Path, str]:
    """The file of a key, and the key as text."""
    if not source or not weights:
        raise ValueError(
            f"the cache's key has source={source!r} and weights={weights!r}; a fingerprint and a"
            " hash are expected, or stale statistics could not be told"
        )
    content = {"version": VERSION, "source": source, "protocol": protocol, "weights": weights}
    try:
        key = json.dumps(content, sort_keys=True, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"the protocol {protocol} is not JSON: {error}") from error
    name = re.sub(r"[^\w-]+", "-", str(protocol.get("name", "statistics")))
    digest = hashlib.sha256(key.encode()).hexdigest()
    return pathlib.Path(directory) / f"{name}-{digest[:24]}.npz", key


def _checksum(key: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(key.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read(path: pathlib.Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays of an intact file of this key; None, with a warning unless there is no file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        found, checksum = (str(arrays.pop(name)) for name in (_KEY, _CHECKSUM))
        if found != key:
            problem = "it is of another source, protocol or network"
        elif checksum != _checksum(key, arrays):
            problem = "its content does not fit its checksum"
        else:
            return arrays
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        problem = f"it cannot be read ({type(error).__name__}: {error})"
    warnings.warn(f"cached statistics {path} are made anew: {problem}", stacklevel=3)
    return None


def _write(path: pathlib.Path, key: str, arrays: Arrays) -> None:
    """All of the file or nothing of it, also when several write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    described: dict[str, Any] = {
        **arrays,
        _KEY: np.array(key),
        _CHECKSUM: np.array(_checksum(key, arrays)),
    }
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, **described)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
