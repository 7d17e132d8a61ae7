"""Turn pictures into record shards, which are checked and quick to read at random.

    python -m ganjax.data.prepare --source=folder --path=PICTURES --out=data/pets --resolution=128
    python -m ganjax.data.prepare --source=zip --path=pets.zip --out=data/pets --resolution=128
    python -m ganjax.data.prepare --source=tfds --name=cifar10 --out=data/cifar10

Pictures are turned upright, cropped to the middle and resized by Lanczos (see
`ganjax.data.transforms`), then kept as PNG, which loses nothing, or as JPEG. Without --resolution
their files are kept as they are. Broken ones are left out, named and counted. After a stop at any
moment the same command goes on: finished shards stay.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import io
import itertools
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import tqdm
from jaxtyping import UInt8
from PIL import Image

from ganjax.data.records import pack
from ganjax.data.shards import Made, Shards
from ganjax.data.sources import SOURCES, Source, describe, open_source, parse_resolution
from ganjax.data.transforms import BrokenItem, Encoded, decode, fit

FORMS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": "4:4:4"},
}
SHARD_ITEMS = 4096  # a run keeps every shard open, and many systems allow 1,024 files
MAX_BROKEN = 100
_CHUNK = 16  # items that a worker makes at a time
_AHEAD = 4  # chunks for each worker


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What becomes of a picture.

    Attributes:
      resolution: (height, width) in pixels; ``None`` keeps files as they are.
      form: of `FORMS`, for those that are not kept.
    """

    resolution: tuple[int, int] | None = None
    form: str = "png"


def prepare(
    source: Source,
    out: str | os.PathLike,
    recipe: Recipe,
    *,
    max_broken: int = MAX_BROKEN,
    workers: int = 0,
    shard_items: int = SHARD_ITEMS,
    show: bool = True,
) -> dict[str, Any]:
    """Writes a source's records, or those that are not there yet.

    Args:
      source: can be pickled.
      out: folder, made if it is not there.
      recipe: what becomes of a picture.
      max_broken: items that are left out before it is an error.
      workers: processes that decode and encode; 0 does it here.
      shard_items: items of a shard.
      show: progress, and what is broken, on standard error.

    Returns:
      The index, as ``index.json`` holds it.

    Raises:
      ValueError: ``out`` holds other records, or too many items are broken.
      OSError: something cannot be read or written, as on a full disk.
    """
    origin = {"source": source.name, "fingerprint": source.fingerprint()}
    origin |= dataclasses.asdict(recipe)
    with Shards(out, origin, len(source), source.classes, shard_items) as shards:
        if shards.index:
            return shards.index
        found = sum(len(shard["broken"]) for shard in shards.done)
        seen = len(source) - sum(len(shards.items(number)) for number in shards.missing)
        chunks = [
            items[i : i + _CHUNK]
            for items in map(shards.items, shards.missing)
            for i in range(0, len(items), _CHUNK)
        ]
        bar = tqdm.tqdm(total=len(source), initial=seen, unit=" pictures", disable=not show)

        def watched(made: Iterator[Made]) -> Iterator[Made]:
            nonlocal found
            for one in made:
                bar.update()
                if one.record is None:
                    found += 1
                    _note(one, found, max_broken, show)
                yield one

        with bar, _makers(source, recipe, workers) as make_all:
            made = watched(make_all(chunks))
            for number in shards.missing:
                try:
                    shards.write(number, itertools.islice(made, len(shards.items(number))))
                except OSError as error:
                    raise OSError(
                        f"{error}. {len(shards.done)} shards are finished and stay; once this is "
                        "put right, the same command goes on."
                    ) from error
        return shards.finish()


def _note(one: Made, found: int, limit: int, show: bool) -> None:
    if found > limit:
        raise ValueError(
            f"{found} broken items, the last of them {one.name} ({one.fault}). At most {limit} are "
            "left out: repair the data, or raise --max_broken. The same command goes on from here."
        )
    if show:
        fault = one.fault if one.fault.startswith(one.name) else f"{one.name} ({one.fault})"
        tqdm.tqdm.write(f"Broken, left out: {fault}", file=sys.stderr)


def make(source: Source, recipe: Recipe, index: int) -> Made:
    """The record of an item."""
    encoded: Encoded | None = None
    try:
        if hasattr(source, "encoded"):
            encoded = source.encoded(index)
            image, label, name = decode(encoded.picture, encoded.name), encoded.label, encoded.name
        else:
            item = source[index]
            image, label, name = item["image"], int(item["label"]), describe(source, index)
    except BrokenItem as error:
        return Made(describe(source, index), fault=str(error))
    height, width, channels = image.shape
    if encoded is None or recipe.resolution:
        fitted = fit(image, recipe.resolution or (height, width), channels)
        encoded = Encoded(_encode(fitted, recipe.form), label, name)
    return Made(name, pack(encoded), size=(height, width), channels=channels)


def _encode(image: UInt8[np.ndarray, "h w c"], form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, **FORMS[form])
    return file.getvalue()


Chunks = Sequence[range]


@contextlib.contextmanager
def _makers(
    source: Source, recipe: Recipe, workers: int
) -> Iterator[Callable[[Chunks], Iterator[Made]]]:
    """A function that makes the items of chunks, in order, by some worker processes."""
    if workers == 0:
        yield lambda chunks: (make(source, recipe, i) for chunk in chunks for i in chunk)
        return

    pool = ProcessPoolExecutor(
        workers,
        # Not fork, which copies locks that a thread may hold.
        multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(source, recipe),
    )

    def make_all(chunks: Chunks) -> Iterator[Made]:
        waiting: collections.deque[Any] = collections.deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_make_chunk, chunk))
                if len(waiting) > workers * _AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise OSError(
                "A worker process was killed, perhaps for want of memory: set fewer --workers."
            ) from error

    try:
        yield make_all
    finally:
        pool.shutdown(cancel_futures=True)


_make: Callable[[int], Made]  # of a worker process


def _begin_worker(source: Source, recipe: Recipe) -> None:
    global _make
    _make = functools.partial(make, source, recipe)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _make_chunk(chunk: range) -> list[Made]:
    return [_make(index) for index in chunk]


def report(index: dict[str, Any], out: str) -> str:
    """What was written, and the command that trains on it."""
    shards = index["shards"]
    count, size = (sum(shard[name] for shard in shards) for name in ("items", "bytes"))
    broken = [name for shard in shards for name, _ in shard["broken"]]
    classes, resolution = index["classes"], index["origin"]["resolution"]
    smallest = min(shard["smallest_side"] for shard in shards if shard["items"])
    lines = [
        f"{count} pictures of {len(classes) or 'no'} classes in {len(shards)} "
        f"shard{'s' * (len(shards) > 1)} ({size / 2**20:.1f} MiB) in {out}"
    ]
    if broken:
        named = ", ".join(broken[:5]) + (", ..." if broken[5:] else "")
        lines.append(f"{len(broken)} broken ones are left out, and listed in index.json: {named}")
    if resolution and smallest < min(resolution):
        lines.append(f"Some were smaller than that, the smallest {smallest} pixels, and enlarged.")
    if not resolution:
        # The sizes of BigGAN's networks.
        resolution = [max(s for s in (32, 64, 128, 256, 512) if s <= max(smallest, 32))] * 2
    height, width = resolution
    command = {
        "--config": "configs/biggan.py",
        "--workdir": f"runs/{os.path.basename(os.path.normpath(out))}",
        "--config.data.source": "records",
        "--config.data.path": out,
        "--config.data.resolution": height if height == width else (height, width),
        "--config.data.channels": max(shard["channels"] for shard in shards),
    }
    words = " ".join(shlex.quote(f"{flag}={value}") for flag, value in command.items())
    return "\n".join([*lines, "Train on them:", f"  python -m ganjax.main {words}"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the status to exit with."""
    args = _parser().parse_args(argv)
    try:
        options = vars(args) | {"resolution": args.resolution or (32, 32), "path": args.path or ""}
        source = open_source(types.SimpleNamespace(**options))
        index = prepare(
            source,
            args.out,
            Recipe(args.resolution, args.form),
            max_broken=args.max_broken,
            workers=args.workers,
            shard_items=args.shard_items,
        )
    except (ValueError, OSError, ImportError) as error:
        # Sources speak of a config's fields; here these are flags.
        print(f"error: {error}".replace("config.data.", "--"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last finished shard.", file=sys.stderr)
        return 130
    print(report(index, args.out))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ganjax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--source", required=True, choices=SOURCES, help="what the pictures are in")
    add("--path", help="folder, zip file, folder of records, or of TFDS data sets")
    add("--name", default="", help="of a TFDS data set")
    add("--split", default="train", help="of a TFDS data set (%(default)s)")
    add("--out", required=True, help="folder to write to")
    add(
        "--resolution",
        type=_resolution,
        help="pixels, as 128 or as height x width: 128x256; without it files are kept as they are",
    )
    add("--form", choices=FORMS, default="png", help="of resized pictures (%(default)s)")
    add(
        "--max_broken",
        type=_count,
        default=MAX_BROKEN,
        help="broken pictures to leave out before giving up (%(default)s)",
    )
    add(
        "--workers",
        type=_count,
        default=os.cpu_count() or 1,
        help="processes; 0 works in this one (one for each core: %(default)s)",
    )
    add(
        "--shard_items",
        type=_count,
        default=SHARD_ITEMS,
        help="pictures of the source for each shard (%(default)s)",
    )
    return parser


def _resolution(text: str) -> tuple[int, int]:
    try:
        return parse_resolution(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
