"""Turn pictures or videos into record shards, which are checked and quick to read at random.

    python -m ganjax.data.prepare --source=folder --path=PICTURES --out=data/pets --resolution=128
    python -m ganjax.data.prepare --source=zip --path=pets.zip --out=data/pets --resolution=128
    python -m ganjax.data.prepare --source=tfds --name=cifar10 --out=data/cifar10
    python -m ganjax.data.prepare --captions --source=webdataset --path=LAION --out=data/laion64 \\
        --resolution=64 --filters 'similarity>=0.3'
    python -m ganjax.data.prepare --videos --source=folder --path=SKY --out=data/sky --resolution=64

Pictures are turned upright, cropped to the middle and resized by Lanczos (see
`ganjax.data.transforms`), then kept as PNG, which loses nothing, or as JPEG. Without --resolution
their files are kept as they are. Broken ones are left out, named and counted. After a stop at any
moment the same command goes on: finished shards stay.

With --videos every frame becomes a record, so that any of them can be read without the others.
"""

import argparse
import collections
import contextlib
import functools
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

import tqdm

from ganjax.data.recipes import FORMS, Recipe, VideoRecipe
from ganjax.data.shards import Made, Shards
from ganjax.data.sources import (
    SOURCES,
    Source,
    open_source,
    open_videos,
    parse_resolution,
    read_options,
)

MAX_BROKEN = 100
_AHEAD = 4  # chunks for each worker


def prepare(
    source: Source,
    out: str | os.PathLike,
    recipe: Recipe,
    *,
    max_broken: int = MAX_BROKEN,
    workers: int = 0,
    shard_items: int | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Writes a source's records, or those that are not there yet.

    Args:
      source: can be pickled.
      out: folder, made if it is not there.
      recipe: what becomes of an item.
      max_broken: items that are left out before it is an error.
      workers: processes that decode and encode; 0 does it here.
      shard_items: items of a shard; ``None`` for the recipe's choice.
      show: progress, and what is broken, on standard error.

    Returns:
      The index, as ``index.json`` holds it.

    Raises:
      ValueError: ``out`` holds other records, or too many items are broken.
      OSError: something cannot be read or written, as on a full disk.
    """
    origin = {"source": source.name, "fingerprint": source.fingerprint()} | recipe.origin()
    per_shard = shard_items or recipe.shard_items
    with Shards(out, origin, len(source), source.classes, per_shard) as shards:
        if shards.index:
            return shards.index
        found = sum(len(shard["broken"]) for shard in shards.done)
        seen = len(source) - sum(len(shards.items(number)) for number in shards.missing)
        chunks = [
            items[i : i + recipe.chunk]
            for items in map(shards.items, shards.missing)
            for i in range(0, len(items), recipe.chunk)
        ]
        bar = tqdm.tqdm(total=len(source), initial=seen, unit=f" {recipe.unit}", disable=not show)

        def watched(made: Iterator[Made]) -> Iterator[Made]:
            nonlocal found
            for one in made:
                bar.update()
                if one.fault:
                    found += 1
                    _note(one, found, max_broken, show)
                yield one

        with bar, _makers(source, recipe, workers) as make_all:
            made = watched(recipe.finish(make_all(chunks)))
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


Chunks = Sequence[range]


@contextlib.contextmanager
def _makers(
    source: Source, recipe: Recipe, workers: int
) -> Iterator[Callable[[Chunks], Iterator[Made]]]:
    """A function that makes the items of chunks, in order, by some worker processes."""
    if workers == 0:
        yield lambda chunks: (recipe.make(source, i) for chunk in chunks for i in chunk)
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
    _make = functools.partial(recipe.make, source)
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
    videos = sum(len(shard["videos"]["name"]) for shard in shards if "videos" in shard)
    what = f"{videos} videos ({count} frames)" if videos else f"{count} pictures"
    lines = [
        f"{what} of {len(classes) or 'no'} classes in {len(shards)} "
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
    data = {
        "--config.data.source": "records",
        "--config.data.path": out,
        "--config.data.resolution": height if height == width else (height, width),
        "--config.data.channels": max(shard["channels"] for shard in shards),
    }
    run = {
        "--config": "configs/biggan.py",
        "--workdir": f"runs/{os.path.basename(os.path.normpath(out))}",
    }
    captions = index["origin"].get("captions")
    if captions:
        text = index["origin"].get("text")
        data["--config.data.text"] = text or "clip-vit-l-14"
        if text:
            data["--config.data.embedded"] = True
    flags = data if videos or captions else run | data
    words = " ".join(shlex.quote(f"{flag}={value}") for flag, value in flags.items())
    if videos or captions:
        what = "of videos takes clips of" if videos else "that draws what texts say takes"
        return "\n".join([*lines, f"A config of a family {what} them by:", f"  {words}"])
    lines.append("Train on them; another --config, as configs/stylegan2.py:auto, takes the same:")
    return "\n".join([*lines, f"  python -m ganjax.main {words}"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the status to exit with."""
    args = _parser().parse_args(argv)
    try:
        options = vars(args) | {"resolution": args.resolution or (32, 32), "path": args.path or ""}
        options["captions"] = args.captions or bool(args.text)
        config = types.SimpleNamespace(**options)
        if args.videos:
            source = open_videos(read_options(config))
            form, shortest = args.form or VideoRecipe.form, args.min_frames
            recipe: Recipe = VideoRecipe(args.resolution, form, args.quality, min_frames=shortest)
        else:
            source = open_source(config)
            form = args.form or Recipe.form
            recipe = Recipe(args.resolution, form, args.quality, options["captions"])
            recipe = _with_texts(args.text, recipe) if args.text else recipe
        index = prepare(
            source,
            args.out,
            recipe,
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


def _with_texts(text: str, looks: Recipe) -> Recipe:
    from ganjax.data.texts import TextRecipe  # JAX, of which pictures need nothing

    return TextRecipe.of(text, looks)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ganjax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--source", required=True, choices=SOURCES, help="what the pictures or videos are in")
    add(
        "--videos",
        action="store_true",
        help="of videos: files (mp4, mov, mkv, webm, avi) or folders of frames",
    )
    add("--path", help="folder, zip file, folder of records, or of TFDS data sets")
    add(
        "--captions",
        action="store_true",
        help="keep the texts: of a folder or zip with a text beside each picture, of a webdataset, "
        "of TFDS data sets that have captions",
    )
    add(
        "--text",
        default="",
        help="a CLIP whose text tower reads the captions now instead of in training, as "
        "clip-vit-l-14; they are kept, too",
    )
    add(
        "--filters",
        nargs="+",
        default=(),
        metavar="FILTER",
        help="of a webdataset, by numbers of its JSON: 'similarity>=0.3' 'width>=64'",
    )
    add("--name", default="", help="of a TFDS data set")
    add("--split", default="train", help="of a TFDS data set (%(default)s)")
    add("--out", required=True, help="folder to write to")
    add(
        "--resolution",
        type=_resolution,
        help="pixels, as 128 or as height x width: 128x256; without it files are kept as they are",
    )
    add("--form", choices=FORMS, help="of resized pictures (png) and of frames (jpeg)")
    add("--quality", type=_quality, help="of JPEG, 1 to 100 (95)")
    add(
        "--min_frames",
        type=_count,
        default=1,
        help="shorter videos are left out and count as broken (%(default)s)",
    )
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
        help=f"pictures ({Recipe.shard_items}) or videos ({VideoRecipe.shard_items}) of a shard",
    )
    return parser


def _resolution(text: str) -> tuple[int, int]:
    try:
        return parse_resolution(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _quality(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 100")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
