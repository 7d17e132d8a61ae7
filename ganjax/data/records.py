"""Record shards, as `ganjax.data.prepare` writes them.

A folder of records holds ArrayRecord files and an ``index.json`` that names them. A record is one
line of JSON (``{"label": 3, "name": "n01443537/1.JPEG"}``) and then the picture's file.
"""

import json
import os
import pathlib
from typing import Any

from ganjax.data.transforms import BrokenItem, Encoded, Item, decode_item

INDEX = "index.json"
UNFINISHED = "unfinished.json"  # in its place until all shards are there
FORMAT = 1


def pack(encoded: Encoded) -> bytes:
    """The record of a picture."""
    head = json.dumps({"label": encoded.label, "name": encoded.name}, sort_keys=True)
    return head.encode() + b"\n" + encoded.picture


def unpack(record: bytes) -> Encoded:
    """The inverse of `pack`."""
    head, _, picture = record.partition(b"\n")
    fields = json.loads(head)
    return Encoded(picture, fields["label"], fields["name"])


class Records:
    """A source of the records in a folder.

    Raises:
      FileNotFoundError: no finished records there.
      ValueError: of another format, or a shard is not as it was written.
    """

    def __init__(self, path: str | os.PathLike):
        # Slow to import, and other sources need none of it.
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._path = pathlib.Path(path)
        index = read_index(self._path)
        self.name = f"records {path}"
        self.classes: tuple[str, ...] = tuple(index["classes"])
        self._fingerprint: str = index["fingerprint"]
        for shard in index["shards"]:
            file = self._path / shard["file"]
            size = file.stat().st_size if file.is_file() else None
            if size != shard["bytes"]:
                what = "is missing" if size is None else f"has {size} bytes"
                raise ValueError(
                    f"{file} {what}; {INDEX} says {shard['bytes']} bytes. Copy it again, or delete "
                    f"{path} and prepare it anew."
                )
        # With a range behind their names the files are opened when they are first read.
        shards = [f"{self._path / shard['file']}[0:{shard['items']}]" for shard in index["shards"]]
        self._records = ArrayRecordDataSource(shards)

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
    if version != FORMAT:
        raise ValueError(
            f"{file} is of format {version}; this version of ganjax reads format {FORMAT}. "
            "Prepare the records anew."
        )
    return index
