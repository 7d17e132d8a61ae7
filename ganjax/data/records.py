"""Record shards, as `ganjax.data.prepare` writes them.

A folder of records holds ArrayRecord files and an ``index.json`` that names them. The record of a
picture is one line of JSON (``{"label": 3, "name": "n01443537/1.JPEG"}``, where captions are kept
with a ``"caption"`` or a list of such) and then the picture's file; where texts were embedded,
``"states"`` is the shape of float16 numbers that follow the file. That of a frame is its file
alone; the frames of a video lie one after the other, and the index says of each video how many they
are, their rate, its class and its name.
"""

import itertools
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from ganjax.data.transforms import BrokenItem, Encoded, Item, decode, decode_item
from ganjax.data.videos import Video

INDEX = "index.json"
UNFINISHED = "unfinished.json"  # in its place until all shards are there
OF_PICTURES, OF_VIDEOS = 1, 2  # formats


def pack(encoded: Encoded) -> bytes:
    """The record of a picture."""
    fields: dict[str, Any] = {"label": encoded.label, "name": encoded.name}
    if encoded.caption is not None:
        fields["caption"] = encoded.caption
    states = b""
    if encoded.states is not None:
        fields["states"] = encoded.states.shape
        states = encoded.states.astype("<f2").tobytes()
    head = json.dumps(fields, sort_keys=True)
    return head.encode() + b"\n" + encoded.picture + states


def unpack(record: bytes) -> Encoded:
    """The inverse of `pack`."""
    head, _, picture = record.partition(b"\n")
    fields = json.loads(head)
    caption = fields.get("caption")
    several = tuple(caption) if isinstance(caption, list) else caption
    states = None
    if "states" in fields:
        size = 2 * math.prod(fields["states"])
        states = np.frombuffer(picture[-size:], "<f2").reshape(fields["states"])
        picture = picture[:-size]
    return Encoded(picture, fields["label"], fields["name"], several, states)


class Records:
    """A source of the pictures in a folder of records.

    Attributes:
      captioned: whether they have captions.
      text: the CLIP whose text tower's states they hold; empty for none.

    Raises:
      FileNotFoundError: no finished records there.
      ValueError: of another format, or a shard is not as it was written.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = pathlib.Path(path)
        self.name = f"records {path}"
        index, self._records = open_records(self._path, OF_PICTURES)
        self.classes: tuple[str, ...] = tuple(index["classes"])
        self._fingerprint: str = index["fingerprint"]
        origin = index.get("origin", {})
        self.captioned, self.text = bool(origin.get("captions")), origin.get("text", "")

    def __reduce__(self) -> Any:
        return Records, (self._path,)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Item:
        return decode_item(self.encoded(index))

    def encoded(self, index: int) -> Encoded:
        """An item's picture as it is kept."""
        return unpack(read_record(self._records, index, self.name))

    def describe(self, index: int) -> str:
        try:
            return f"record {index}, {self.encoded(index).name}"
        except (OSError, ValueError):
            return f"record {index}"

    def fingerprint(self) -> str:
        return self._fingerprint


class RecordVideo(Video):
    """Consecutive records as frames."""

    def __init__(self, records: Any, start: int, frames: int, rate: float, name: str):
        self.name, self.rate = name, rate
        self._records, self._start, self._frames = records, start, frames

    def __len__(self) -> int:
        return self._frames

    def read(self, frames: Int[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w c"]:
        return np.stack([decode(self.encoded(int(n)), f"{self.name}, frame {n}") for n in frames])

    def encoded(self, frame: int) -> bytes:
        """A frame's picture as it is kept."""
        return read_record(self._records, self._start + frame, self.name)


class RecordVideos:
    """A source of the videos in a folder of records.

    Raises:
      FileNotFoundError: no finished records there.
      ValueError: of another format, or a shard is not as it was written.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = pathlib.Path(path)
        self.name = f"records {path}"
        index, self._records = open_records(self._path, OF_VIDEOS)
        self.classes: tuple[str, ...] = tuple(index["classes"])
        self._fingerprint: str = index["fingerprint"]
        known = [shard["videos"] for shard in index["shards"] if "videos" in shard]
        self._names, self._rates, self._labels, self._frames = (
            list(itertools.chain.from_iterable(videos[field] for videos in known))
            for field in ("name", "rate", "label", "frames")
        )
        self._starts = list(itertools.accumulate(self._frames, initial=0))

    def __reduce__(self) -> Any:
        return RecordVideos, (self._path,)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Item:
        return {"video": self.video(index), "label": np.asarray(self._labels[index], np.int32)}

    def video(self, index: int) -> RecordVideo:
        """A video without its class."""
        return RecordVideo(
            self._records,
            self._starts[index],
            self._frames[index],
            self._rates[index],
            self._names[index],
        )

    def describe(self, index: int) -> str:
        return self._names[index]

    def fingerprint(self) -> str:
        return self._fingerprint

    content = fingerprint  # records do not change


def open_records(path: pathlib.Path, version: int) -> tuple[dict[str, Any], Any]:
    """The index of a folder of records and the records, which are opened when they are first read.

    Args:
      version: the format that is wanted.

    Raises:
      FileNotFoundError: no finished records there.
      ValueError: of another format, or a shard is not as it was written.
    """
    # Slow to import, and other sources need none of it.
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    index = read_index(path)
    if index["format"] != version:
        raise ValueError(
            f"{path} holds pictures, and clips are wanted. Set config.data.clip=None, or prepare "
            "videos with --videos."
            if version == OF_VIDEOS
            else f"{path} holds videos, and pictures are wanted. Set config.data.clip to see them."
        )
    for shard in index["shards"]:
        file = path / shard["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            what = "is missing" if size is None else f"has {size} bytes"
            raise ValueError(
                f"{file} {what}; {INDEX} says {shard['bytes']} bytes. Copy it again, or delete "
                f"{path} and prepare it anew."
            )
    # With a range behind their names the files are opened when they are first read.
    shards = [f"{path / shard['file']}[0:{shard['items']}]" for shard in index["shards"]]
    return index, ArrayRecordDataSource(shards)


def read_record(records: Any, index: int, name: str) -> bytes:
    """A record of an ArrayRecordDataSource.

    Raises:
      BrokenItem: its checksum fails.
      OSError: any other fault, which is the storage's.
    """
    try:
        return records[index]
    except RuntimeError as error:
        if "Corrupted" in str(error):  # Riegeli's word
            raise BrokenItem(str(error)) from error
        raise OSError(f"{name}: record {index}: {error}") from error


def read_index(path: pathlib.Path) -> dict[str, Any]:
    """What a folder of records says about itself.

    Raises:
      FileNotFoundError: there is none.
      ValueError: of another format.
    """
    file = path / INDEX
    if not file.is_file():
        what = f"holds no {INDEX}" if path.exists() else "is not there"
        if (path / UNFINISHED).is_file():
            what = "is not finished: run the command that prepares it again"
        raise FileNotFoundError(f"{path} {what}; expected a folder of finished records.")
    try:
        index = json.loads(file.read_text())
        version = index["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is no index of records ({error!r}).") from None
    if version not in (OF_PICTURES, OF_VIDEOS):
        raise ValueError(
            f"{file} is of format {version}; this version of ganjax reads formats {OF_PICTURES} "
            f"(pictures) and {OF_VIDEOS} (videos). Prepare the records anew."
        )
    return index
