"""Pictures as people keep them: in a folder, or in a zip that is read without unpacking it.

Both know two layouts, of pictures and of videos (`videos`). With a ``dataset.json`` beside them
(StyleGAN's), ``{"labels": [["00000/img00000000.png", 6], ...]}`` gives each its class, and null in
place of the list says that there are none. A video that is a folder may be named by itself or by
its frames (StyleGAN-V's). Without it, the direct sub-folders are the classes, sorted by
name (ImageNet's); where there are none, there are no labels. One folder around everything, as zips
often have, is looked through.
"""

import collections
import hashlib
import io
import json
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from ganjax.data.transforms import BrokenItem, Encoded, Item, decode_item

LABELS = "dataset.json"
Labels = tuple[Int[np.ndarray, "items"], tuple[str, ...]]
# What Pillow reads and people keep.
SUFFIXES = frozenset(
    ".avif .bmp .gif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()
)


@runtime_checkable
class Tree(Protocol):
    """Files with relative names, such as ``n01440764/1.JPEG``; threads may read at once."""

    path: pathlib.Path

    def names(self) -> list[str]:
        """All files, in any order."""
        ...

    def read(self, name: str) -> bytes: ...

    def open(self, name: str) -> io.BufferedIOBase:
        """For what is read in parts."""
        ...

    def stamp(self, name: str) -> str:
        """Changes when the file does; nothing is read for it."""
        ...


class Folder:
    """The files below a folder; links are followed.

    Raises:
      FileNotFoundError: there is no such folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        if not self.path.is_dir():
            what = "is a file, not a folder" if self.path.exists() else "is not there"
            raise FileNotFoundError(f"The folder {self.path} {what}.")

    def names(self) -> list[str]:
        names: list[str] = []
        for folder, below, files in os.walk(self.path, followlinks=True, onerror=_raise):
            here = os.path.realpath(folder) + "/"
            # A link to a folder above would lead round and round.
            below[:] = [f for f in below if not here.startswith(os.path.realpath(here + f) + "/")]
            inside = pathlib.PurePath(os.path.relpath(folder, self.path)).as_posix()
            names += files if inside == "." else [f"{inside}/{file}" for file in files]
        return names

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def open(self, name: str) -> io.BufferedIOBase:
        return open(self.path / name, "rb")

    def stamp(self, name: str) -> str:
        stat = (self.path / name).stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"


def _raise(error: OSError) -> None:
    raise error


class _Member(NamedTuple):
    """What reading takes of a ZipInfo, which is ten times the size: zips have a million members."""

    start: int
    packed: int  # bytes
    deflated: bool
    CRC: int


class Zip:
    """The members of a zip, read in place by offset, so that threads share nothing but a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not a whole zip, or members that are encrypted or compressed in a rare way.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            what = "is a folder, not a zip file" if self.path.exists() else "is not there"
            raise FileNotFoundError(f"The zip file {self.path} {what}.")
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{self.path} is not a whole zip file ({error}). Copy it again."
            ) from None
        for member in members:
            plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if member.flag_bits & 1 or not plain:
                raise ValueError(
                    f"{self.path}: {member.filename} is encrypted or not compressed by deflate; "
                    "expected a plain zip, best without compression (`zip -0`)."
                )
        self._members = {
            member.filename: _Member(
                member.header_offset,
                member.compress_size,
                member.compress_type == zipfile.ZIP_DEFLATED,
                member.CRC,
            )
            for member in members
        }
        self._file = open(self.path, "rb")

    def __reduce__(self) -> Any:
        return Zip, (self.path,)

    def names(self) -> list[str]:
        return list(self._members)

    def stamp(self, name: str) -> str:
        return f"{self._members[name].CRC:08x}"

    def read(self, name: str) -> bytes:
        """NOTE: not `ZipFile.read`, whose handles wait for one lock around a shared position."""
        member = self._members[name]
        file, start = self._file.fileno(), member.start
        header = os.pread(file, 30, start)
        if header[:4] != b"PK\3\4":
            raise BrokenItem(f"{name}: no such member at its place in the zip")
        # The local header repeats name and extra field, the latter with a length of its own.
        start += 30 + sum(struct.unpack("<2H", header[26:30]))
        data = os.pread(file, member.packed, start)
        try:
            if member.deflated:
                data = zlib.decompress(data, -zlib.MAX_WBITS)
        except zlib.error as error:
            raise BrokenItem(f"{name}: {error}") from error
        if zlib.crc32(data) != member.CRC:
            raise BrokenItem(f"{name}: its checksum in the zip is another")
        return data

    def open(self, name: str) -> io.BufferedIOBase:
        return io.BytesIO(self.read(name))


class Files:
    """A source of the pictures in a tree, sorted by name.

    Args:
      tree: a `Folder` or a `Zip`.
      kind: the source's name in a config.

    Raises:
      FileNotFoundError: no pictures in it.
      ValueError: labels that do not fit the pictures.
    """

    def __init__(self, tree: Tree, kind: str):
        self.name = f"{kind} {tree.path}"
        self._tree = tree
        found = tree.names()
        self._names = sorted(name for name in found if is_picture(name))
        if not self._names:
            raise FileNotFoundError(
                f"{tree.path} holds no pictures ({len(found)} other files); expected files that "
                f"end in {', '.join(sorted(SUFFIXES))}."
            )
        self._labels, self.classes = find_labels(tree, self._names, found)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Item:
        return decode_item(self.encoded(index))

    def encoded(self, index: int) -> Encoded:
        """An item's picture as it is kept."""
        name = self._names[index]
        return Encoded(self._tree.read(name), int(self._labels[index]), name)

    def describe(self, index: int) -> str:
        return self._names[index]

    def fingerprint(self) -> str:
        """Of names and labels: a million files on a server are not looked at for it."""
        digest = hashlib.sha256(self._labels.tobytes())
        digest.update("\0".join(self._names).encode(errors="surrogateescape"))
        return f"files-1-{digest.hexdigest()[:16]}"

    def content(self) -> str:
        """As `fingerprint`, and of the pictures' own stamps, for what is computed from them."""
        stamps = "\0".join(self._tree.stamp(name) for name in self._names)
        return f"{self.fingerprint()}-{hashlib.sha256(stamps.encode()).hexdigest()[:16]}"


def is_picture(name: str) -> bool:
    """Whether a file is named as a picture is, and not hidden."""
    return has_suffix(name, SUFFIXES)


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    """Whether a file's name ends in one of these, such as ``.png``, and it is not hidden."""
    path = pathlib.PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in suffixes and not hidden


def find_labels(tree: Tree, names: Sequence[str], found: Collection[str]) -> Labels:
    """The class of each item of a tree and the names of the classes, by either layout.

    Args:
      tree: of which.
      names: of the items, sorted: pictures, or videos, which may be folders.
      found: all files of the tree.

    Raises:
      ValueError: labels that do not fit the items.
    """
    inside = _common_folder(names)
    for end in range(len(inside) + 1):
        folder = inside[:end]
        if folder[-1:] in ("", "/") and folder + LABELS in found:
            return _read_labels(tree, names, folder)
    return _labels_by_folder(tree, names, inside)


def _common_folder(names: Sequence[str]) -> str:
    """The folder that holds all of the sorted names, such as ``"pictures/"``, or ``""``."""
    common = os.path.commonpath([os.path.dirname(name) for name in (names[0], names[-1])])
    return f"{common}/" if common else ""


def _labels_by_folder(tree: Tree, names: Sequence[str], inside: str) -> Labels:
    """Labels and class names from the sub-folders of the folder ``inside``."""
    folders = [name[len(inside) :].rpartition("/")[0].partition("/")[0] for name in names]
    classes = sorted(set(folders) - {""})
    if not classes:
        return np.zeros(len(names), np.int32), ()
    if "" in folders:
        raise ValueError(
            f"{tree.path}: {names[folders.index('')]!r} and {folders.count('') - 1} more items "
            f"lie beside the {len(classes)} sub-folders that are the classes. Move them into one, "
            f"or add a {LABELS} that gives each its class."
        )
    numbers = {folder: number for number, folder in enumerate(classes)}
    return np.asarray([numbers[folder] for folder in folders], np.int32), tuple(classes)


def _read_labels(tree: Tree, names: Sequence[str], folder: str) -> Labels:
    """Labels from the dataset.json in a folder; the classes are called by their numbers."""
    where = f"{tree.path}: {folder}{LABELS}"
    try:
        labels = json.loads(tree.read(folder + LABELS)).get("labels")
        by_name = None if labels is None else {folder + name: label for name, label in labels}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{where} cannot be read ({error}); expected {{"labels": [[name, class], ...]}}.'
        ) from None
    if by_name is None:
        return np.zeros(len(names), np.int32), ()
    for name, label in by_name.items():
        if not _is_class(label):
            raise ValueError(
                f"{where} gives {name!r} the class {str(label)[:40]!r}; expected a whole number "
                "from 0 on."
            )
    missing = [name for name in names if name not in by_name]
    if missing:  # StyleGAN-V gives the frames of a video its class.
        frames = collections.defaultdict(set)
        for name, label in by_name.items():
            frames[os.path.dirname(name)].add(label)
        by_name |= {name: min(frames[name]) for name in missing if len(frames[name]) == 1}
        missing = [name for name in missing if name not in by_name]
    if missing:
        raise ValueError(
            f"{where} has no class for {len(missing)} of {len(names)} items, such as "
            f"{missing[0]!r}. Add them to its labels, by names as this one."
        )
    numbers = np.asarray([by_name[name] for name in names], np.int32)
    return numbers, tuple(str(number) for number in range(max(by_name.values()) + 1))


def _is_class(label: Any) -> bool:
    return isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 2**31
