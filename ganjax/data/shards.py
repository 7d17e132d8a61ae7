"""Writing a folder of records so that a stop at any moment costs one shard at most.

A shard is written under a temporary name, flushed to the disk and renamed; only then is it noted in
``unfinished.json``, which becomes ``index.json`` when all is there. `records` reads the result.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ganjax.data.records import INDEX, OF_PICTURES, OF_VIDEOS, UNFINISHED

TEMPORARY = ".tmp"


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of an item of the source.

    Attributes:
      name: of the item.
      records: one of a picture, one for each frame of a video; none where it is broken.
      fault: why it is.
      size: (height, width) of the source's picture in pixels.
      channels: 1 or 3.
      video: ``label`` and ``rate`` of a video, which its records do not say.
    """

    name: str
    records: tuple[bytes, ...] = ()
    fault: str = ""
    size: tuple[int, int] = (0, 0)
    channels: int = 0
    video: Mapping[str, Any] | None = None


class Shards:
    """A folder that records are written to, locked while the context lasts.

    Args:
      out: made if it is not there.
      origin: what the records are made from and how, as JSON can hold it; shards of another origin
        are an error.
      count: items of the source.
      classes: of the source.
      shard_items: items of the source that become a shard.

    Attributes:
      index: what ``index.json`` holds; ``None`` until all is there.

    Raises:
      ValueError: the folder holds records of another origin, or somebody else writes there.
      OSError: it cannot be made or written.
    """

    def __init__(
        self,
        out: str | os.PathLike,
        origin: Mapping[str, Any],
        count: int,
        classes: Sequence[str],
        shard_items: int,
    ):
        self.out = pathlib.Path(out)
        # As it will be read back: JSON makes lists of tuples.
        self._origin = json.loads(json.dumps({**origin, "shard_items": shard_items}))
        self._count, self._classes, self._items = count, tuple(classes), shard_items
        self._done: dict[int, dict[str, Any]] = {}
        self.index: dict[str, Any] | None = None

    def __enter__(self) -> "Shards":
        with contextlib.ExitStack() as stack:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                self._open(stack)
            except OSError as error:
                raise OSError(
                    f"{self.out} cannot be written ({error}). Give --out another folder."
                ) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _open(self, stack: contextlib.ExitStack) -> None:
        lock = os.open(self.out, os.O_RDONLY)
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another process is writing records to {self.out}.") from None
        self._continue()
        if not self.index:
            self._note(UNFINISHED, {"origin": self._origin, "shards": self.done})

    def _continue(self) -> None:
        """Reads what is there."""
        for file in self.out.glob(f"*{TEMPORARY}"):
            file.unlink()
        for name in (INDEX, UNFINISHED):
            if not (self.out / name).is_file():
                continue
            state = json.loads((self.out / name).read_text())
            self._check(state.get("origin") or {})
            if name == INDEX:
                self.index = state
            self._done = {
                shard["number"]: shard
                for shard in state["shards"]
                # A file that is not as it was noted is made anew.
                if name == INDEX or _bytes(self.out / shard["file"]) == shard["bytes"]
            }
            return

    def _check(self, before: dict[str, Any]) -> None:
        names = [name for name, value in self._origin.items() if before.get(name) != value]
        if names:
            lines = [f"  {n}: {before.get(n)!r} then, {self._origin[n]!r} now" for n in names]
            raise ValueError(
                f"{self.out} holds other records:\n" + "\n".join(lines) + "\n"
                "Give --out another folder, or delete this one."
            )

    @property
    def missing(self) -> list[int]:
        """Numbers of the shards that are not there."""
        return [n for n in range(-(-self._count // self._items)) if n not in self._done]

    @property
    def done(self) -> list[dict[str, Any]]:
        """What is known of each finished shard."""
        return [self._done[number] for number in sorted(self._done)]

    def items(self, number: int) -> range:
        """The source's items that belong to a shard."""
        start = number * self._items
        return range(start, min(self._count, start + self._items))

    def write(self, number: int, made: Iterable[Made]) -> None:
        """Writes a shard, whole or not at all.

        Args:
          number: of `missing`.
          made: from its `items`.

        Raises:
          OSError: a full disk, or another fault of the storage.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        file = self.out / f"part-{number:05d}.array_record"
        temporary = file.with_name(file.name + TEMPORARY)
        broken: list[tuple[str, str]] = []
        videos: list[dict[str, Any]] = []
        count, checksum, channels, side = 0, 0, 0, None
        try:
            # Uncompressed: pictures are compressed already.
            writer = _storage(ArrayRecordWriter, str(temporary), "group_size:1,uncompressed")
            for one in made:
                if one.fault:
                    broken.append((one.name, one.fault))
                    continue
                for record in one.records:
                    _storage(writer.write, record)
                    count, checksum = count + 1, zlib.crc32(record, checksum)
                if one.video is not None:
                    videos.append({"name": one.name, "frames": len(one.records), **one.video})
                channels = max(channels, one.channels)
                side = min(one.size) if side is None else min(side, *one.size)
            _storage(writer.close)
            _flush(temporary)
            os.replace(temporary, file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._done[number] = {
            "number": number,
            "file": file.name,
            "items": count,  # records
            "bytes": _bytes(file),
            "crc32": checksum,
            "broken": broken,
            "channels": channels,
            "smallest_side": side,  # of the source's pictures, in pixels
        }
        if videos:  # a list for each field: there may be many
            self._done[number]["videos"] = {key: [v[key] for v in videos] for key in videos[0]}
        self._note(UNFINISHED, {"origin": self._origin, "shards": self.done})

    def finish(self) -> dict[str, Any]:
        """Writes and returns the index.

        Raises:
          ValueError: every item is broken.
        """
        assert not self.missing, self.missing
        content: list[Any] = [self._classes]
        content.append([(shard["items"], shard["crc32"]) for shard in self.done])
        videos = [shard["videos"] for shard in self.done if "videos" in shard]
        if videos:
            content.append(videos)
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        if not any(shard["items"] for shard in self.done):
            raise ValueError(f"Every one of the {self._count} items is broken.")
        version = OF_VIDEOS if videos else OF_PICTURES
        self.index = {
            "format": version,
            "classes": self._classes,
            "fingerprint": f"records-{version}-{digest}",
            "origin": self._origin,
            "shards": self.done,
        }
        self._note(INDEX, self.index)
        (self.out / UNFINISHED).unlink(missing_ok=True)
        return self.index

    def _note(self, name: str, state: dict[str, Any]) -> None:
        temporary = self.out / (name + TEMPORARY)
        temporary.write_text(json.dumps(state, indent=1) + "\n")
        _flush(temporary)
        os.replace(temporary, self.out / name)


def _storage(call: Any, *args: Any) -> Any:
    """A call of array_record, whose errors are RuntimeErrors, such as of a full disk."""
    try:
        return call(*args)
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _flush(file: pathlib.Path) -> None:
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())


def _bytes(file: pathlib.Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
