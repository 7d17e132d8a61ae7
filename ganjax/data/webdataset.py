"""Pictures with captions in tar files, as img2dataset writes LAION and COYO (WebDataset's layout).

A sample is what has one name up to its first dot: ``000000012.jpg``, ``000000012.txt``, and
``000000012.json``, by whose numbers (``width``, ``similarity``, ``AESTHETIC_SCORE``, ...) one may
filter. Any sample can be read at any time: where everything lies is looked up once for each tar,
kept in the cache, and looked up anew when the tar's size or time changes.

NOTE: by the standard library's tarfile, not by the package webdataset, which reads tars from
beginning to end and shuffles by a buffer: the stream could not be a function of (seed, item).
"""

import hashlib
import json
import operator
import os
import pathlib
import re
import tarfile
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tqdm
from jaxtyping import Bool, Shaped

from ganjax.data.files import SUFFIXES
from ganjax.data.transforms import BrokenItem, Encoded, Item, decode_item

VERSION = 1  # of the files of the cache
THREADS = 8  # that look through tars
NAMED = 5  # broken members that a warning names

Arrays = dict[str, np.ndarray]
NOTHING: Arrays = {  # as of `look_through`
    "key": np.zeros(0, np.bytes_),
    "picture": np.zeros((0, 2), np.int64),
    "text": np.zeros((0, 2), np.int64),
    "broken": np.zeros(0, np.str_),
}
FIELD = "field "  # before a number's name in the arrays of a tar
COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


class WebDataset:
    """The samples of tar files that have a picture and a text, by tar and then by place.

    An item is ``{"image": uint8 [h, w, c] of any size, "caption": str, "label": 0}``.

    Args:
      path: a folder, whose tars at any depth are taken in the order of their names, or one tar.
      filters: conditions on numbers of the samples' JSON, all of which must hold:
        ``("similarity>=0.3", "width>=64")``. A sample without the number does not pass.

    Raises:
      FileNotFoundError: no tars there.
      ValueError: none is a tar, no sample in any, none that passes; a filter that is none, or a
        number that no sample has.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, path: str | os.PathLike, filters: Sequence[str] = ()):
        self._args = (path, tuple(filters))
        conditions = [_condition(text) for text in filters]
        self._tars = _tars(pathlib.Path(path))
        parts = _indices(self._tars)
        total = sum(len(part["key"]) for part in parts)
        if not total:
            raise ValueError(
                f"{path}: none of {len(parts)} tars has a picture with a text, as 000000012.jpg "
                "and 000000012.txt."
            )
        _check_names(parts, conditions)
        passed = [_passed(part, conditions) for part in parts]
        self._tar = np.repeat(np.arange(len(parts)), [mask.sum() for mask in passed])
        self._key, self._picture, self._text = (
            np.concatenate([part[name][mask] for part, mask in zip(parts, passed)])
            for name in ("key", "picture", "text")
        )
        if not len(self):
            raise ValueError(f"{path}: none of {total} pairs passes {', '.join(filters)}.")
        said = f" ({len(self)} of {total} pairs pass {', '.join(filters)})" if filters else ""
        self.name = f"webdataset {path}{said}"

    def __reduce__(self) -> Any:
        return WebDataset, self._args

    def __len__(self) -> int:
        return len(self._key)

    def __getitem__(self, index: int) -> Item:
        return decode_item(self.encoded(index))

    def encoded(self, index: int) -> Encoded:
        """An item's picture as it is kept, and its text.

        Raises:
          BrokenItem: the text is empty or not UTF-8.
          OSError: the tar cannot be read there.
        """
        name = self.describe(index)
        try:
            caption = self._read(index, self._text).decode().strip()
        except UnicodeDecodeError as error:
            raise BrokenItem(f"{name}: its text is not UTF-8 ({error})") from error
        if not caption:
            raise BrokenItem(f"{name}: its text is empty")
        return Encoded(self._read(index, self._picture), 0, name, caption)

    def describe(self, index: int) -> str:
        """Its tar and its name there."""
        return f"{self._tars[self._tar[index]].name}/{self._key[index].decode()}"

    def fingerprint(self) -> str:
        """Of names and places."""
        digest = hashlib.sha256()
        for part in (self._tar, self._key, self._picture, self._text):
            digest.update(part.tobytes())
        return f"webdataset-1-{digest.hexdigest()[:16]}"

    def content(self) -> str:
        """Changes when a tar does, too."""
        stamps = "\0".join(_stamp(tar) for tar in self._tars)
        return f"{self.fingerprint()}-{hashlib.sha256(stamps.encode()).hexdigest()[:16]}"

    def _read(self, index: int, places: Shaped[np.ndarray, "n 2"]) -> bytes:
        tar = self._tars[self._tar[index]]
        start, size = places[index].tolist()
        # Opened for each: there may be more tars than a process may hold open.
        with open(tar, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, start)
        if len(data) != size:
            raise OSError(f"{tar} ends before {self.describe(index)}; it was cut off meanwhile.")
        return data


def _tars(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.tar")) if path.is_dir() else []
    if not found:
        what = "holds no tar files" if path.is_dir() else "is not there"
        raise FileNotFoundError(
            f"{path} {what}; a folder of tars is expected, as img2dataset writes with "
            "--output_format=webdataset."
        )
    return found


# What is where in a tar


def _indices(tars: Sequence[pathlib.Path]) -> list[Arrays]:
    """Of each tar; those that the cache has not are looked through.

    Raises:
      ValueError: none of them is a tar. One beside others is left out.
    """
    kept = {tar: _kept(tar) for tar in tars}
    missing = [tar for tar, arrays in kept.items() if arrays is None]
    with ThreadPoolExecutor(THREADS) as pool:
        made = pool.map(_made, missing)
        bar = tqdm.tqdm(made, "looking through tars", len(missing), disable=not missing)
        found = kept | dict(zip(missing, bar))
    faults = [each for each in found.values() if isinstance(each, ValueError)]
    if len(faults) == len(found):
        raise faults[0]
    parts = [arrays if isinstance(arrays, dict) else NOTHING for arrays in found.values()]
    broken = [str(what) for what in (*faults, *(one for part in parts for one in part["broken"]))]
    if broken:
        more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        warnings.warn(f"Left out: {'; '.join(broken[:NAMED])}{more}.", stacklevel=4)
    return parts


def _made(tar: pathlib.Path) -> Arrays | ValueError:
    """Looked up, and kept where that is possible; or why it cannot be."""
    stamp = _stamp(tar)
    try:
        arrays = look_through(tar)
    except ValueError as error:
        return error
    file = _file(tar)
    temporary = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as opened:
            np.savez(opened, allow_pickle=False, stamp=np.array(stamp), **arrays)
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        warnings.warn(f"cannot keep {file}: {error}; it will be made again", stacklevel=2)
    return arrays


def _kept(tar: pathlib.Path) -> Arrays | None:
    """From the cache; None where there is nothing of this very tar."""
    try:
        with np.load(_file(tar), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays if str(arrays.pop("stamp")) == _stamp(tar) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # damaged


def _file(tar: pathlib.Path) -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    digest = hashlib.sha256(str(tar.resolve()).encode()).hexdigest()[:24]
    return pathlib.Path(home).expanduser() / "ganjax" / "webdataset" / f"{digest}.npz"


def _stamp(tar: pathlib.Path) -> str:
    stat = tar.stat()
    return f"{VERSION} {stat.st_size} {stat.st_mtime_ns}"


def look_through(tar: pathlib.Path) -> Arrays:
    """Where the samples of a tar lie.

    Returns:
      "key" [n] names; "picture" and "text" [n, 2] first byte and number of bytes; "broken" what is
      no sample and why; "field NAME" [n] numbers of the JSON, NaN where a sample has none.

    Raises:
      ValueError: not a tar, or a compressed one.
    """
    samples: dict[str, dict[str, Any]] = {}
    broken: list[str] = []
    try:
        with tarfile.open(tar, "r:") as archive:
            _collect(archive, samples, broken)
    except tarfile.ReadError as error:
        if not samples:
            raise ValueError(
                f"{tar} is no tar ({error}), or a compressed one; expected a plain .tar."
            ) from None
    if not _has_end(tar):
        broken.append(f"{tar.name} is cut off; copy it again: what follows its end")
    size = tar.stat().st_size
    for key, sample in list(samples.items()):
        absent = [kind for kind in ("picture", "text") if kind not in sample]
        outside = any(sum(sample[kind]) > size for kind in ("picture", "text") if kind in sample)
        if absent or outside:
            fault = f"has no {' and no '.join(absent)}" if absent else "is cut off"
            broken.append(f"{tar.name}/{key} {fault}")
            del samples[key]
    fields = sorted({name for sample in samples.values() for name in sample["numbers"]})
    rows = samples.values()
    return {
        "key": np.array([key.encode() for key in samples], np.bytes_),
        "picture": np.array([row["picture"] for row in rows], np.int64).reshape(-1, 2),
        "text": np.array([row["text"] for row in rows], np.int64).reshape(-1, 2),
        "broken": np.array(broken, np.str_),
    } | {
        FIELD + name: np.array([row["numbers"].get(name, np.nan) for row in rows], np.float64)
        for name in fields
    }


def _collect(
    archive: tarfile.TarFile, samples: dict[str, dict[str, Any]], broken: list[str]
) -> None:
    for member in archive:
        if not member.isfile():
            continue
        folder, _, file = member.name.rpartition("/")
        stem, _, ending = file.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        sample = samples.setdefault(key, {"numbers": {}})
        place = (member.offset_data, member.size)
        if f".{ending.lower()}" in SUFFIXES:
            sample["picture"] = place
        elif ending == "txt":
            sample["text"] = place
        elif ending == "json":
            opened = archive.extractfile(member)
            assert opened is not None, "a file"
            try:
                sample["numbers"] = dict(_numbers(json.loads(opened.read())))
            except (ValueError, tarfile.ReadError) as error:
                broken.append(f"{member.name}, whose numbers are not known ({error})")


def _numbers(content: Any) -> Iterator[tuple[str, float]]:
    if isinstance(content, dict):
        for name, value in content.items():
            if isinstance(value, int | float):
                yield name, float(value)


def _has_end(tar: pathlib.Path) -> bool:
    """Whether it ends as tars do, with two empty blocks."""
    with open(tar, "rb") as file:
        file.seek(max(0, tar.stat().st_size - 1024))
        return file.read() == bytes(1024)


# Filters


def _condition(text: str) -> tuple[str, str, float]:
    match = re.fullmatch(r"\s*([\w.-]+?)\s*(>=|<=|==|!=|>|<)\s*([-+.\w]+)\s*", str(text))
    try:
        if match:
            return match[1], match[2], float(match[3])
    except ValueError:
        pass
    raise ValueError(
        f"config.data.filters has {text!r}; expected the name of a number in the samples' JSON, "
        f"one of {', '.join(COMPARED)}, and a number, as 'similarity>=0.3'."
    )


def _check_names(parts: Sequence[Arrays], conditions: Sequence[tuple[str, str, float]]) -> None:
    having = {name.removeprefix(FIELD) for part in parts for name in part if name.startswith(FIELD)}
    for name, *_ in conditions:
        if name not in having:
            raise ValueError(
                f"config.data.filters: no sample of {len(parts)} tars has a number {name!r} in its"
                f" JSON; they have {', '.join(sorted(having)) or 'none'}. Set filters by these."
            )


def _passed(arrays: Arrays, conditions: Sequence[tuple[str, str, float]]) -> Bool[np.ndarray, "n"]:
    """Which samples of a tar pass all conditions; without the number, none does."""
    passed = np.ones(len(arrays["key"]), bool)
    for name, sign, value in conditions:
        numbers = arrays.get(FIELD + name, np.full(len(passed), np.nan))
        with np.errstate(invalid="ignore"):
            passed &= COMPARED[sign](numbers, value) & ~np.isnan(numbers)
    return passed
