"""How fast is the data stream, from the files to arrays on a device?

    python benchmarks/data_stream.py --resolution=128
    python benchmarks/data_stream.py --resolution=256 --threads=1,8 --out=results.jsonl
    python benchmarks/data_stream.py --source=folder --path=PICTURES --resolution=128
    python benchmarks/data_stream.py --clips=sparse --resolution=128 --batch=16

Without --source it makes JPEGs of 500x375 pixels, as many in ImageNet are, and reads them from a
folder, from a zip, from records that keep them as they are, and from records of pictures that are
fitted already, as PNG and as JPEG. With --clips it makes videos of 320x240 pixels, as UCF-101 has
them, and takes three sparse frames (StyleGAN-V's) or 16 dense ones of each, from folders of JPEGs,
from mp4 with a key frame every 250 frames (x264's choice) and every 12, and from records of fitted
frames. Each row reads batches for --seconds after one to warm up,
--repeats times. The files are in the system's memory by then, so a slow disk is not in the numbers.

Prints a table and a line of JSON, which goes to the end of the file ``--out`` if there is one.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import sys
import tempfile
import time
import types
import zipfile
from collections.abc import Iterator, Sequence

import av
import numpy as np
import tqdm
from PIL import Image

from ganjax import environment

environment.prepare()  # before anything looks for devices

import jax  # noqa: E402

from ganjax.data.clips import Clip, ClipTransform, Dense, Sparse  # noqa: E402
from ganjax.data.pipeline import Stream  # noqa: E402
from ganjax.data.prepare import prepare  # noqa: E402
from ganjax.data.recipes import Recipe, VideoRecipe  # noqa: E402
from ganjax.data.sources import SOURCES, Source, open_source, parse_resolution  # noqa: E402
from ganjax.data.transforms import Transform  # noqa: E402

SIZE = (500, 375)  # width, height of the pictures that are made, in pixels
VIDEO_SIZE = (320, 240)
CLIPS = {"sparse": Clip(Sparse()), "dense": Clip(Dense())}


@dataclasses.dataclass(frozen=True)
class Row:
    """One source, read by some threads.

    Attributes:
      bytes_each: of an item's file, on average; 0 where unknown.
      per_second: items, the median of the repeats.
      cores: that were busy with it, on average: fewer than the threads where they wait, or where
        other processes take their part of the machine.
    """

    source: str
    threads: int
    bytes_each: int
    per_second: float
    slowest: float
    fastest: float
    cores: float


@dataclasses.dataclass(frozen=True)
class Report:
    """All rows; ``str(report)`` is the table.

    Attributes:
      unit: what is counted: images or clips.
      made: what was made to be read; empty where the data was given.
      resolution: (height, width) in pixels.
      batch: items that are read together.
      seconds: of a repeat.
    """

    host: str
    versions: dict[str, str]
    date: str
    unit: str
    made: str
    resolution: tuple[int, int]
    batch: int
    seconds: float
    repeats: int
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        head = ("source", "threads", "KB each", f"{self.unit}/s", "slowest", "fastest", "cores")
        table: list[tuple[str, ...]] = [head]
        for row in self.rows:
            rates = row.per_second, row.slowest, row.fastest
            size = f"{row.bytes_each / 1e3:.1f}" if row.bytes_each else "-"
            cells = (*(f"{rate:.0f}" for rate in rates), f"{row.cores:.2f}")
            table.append((row.source, str(row.threads), size, *cells))
        widths = [max(map(len, column)) for column in zip(*table)]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        height, width = self.resolution
        made = f"{self.made}, " if self.made else ""
        return "\n".join(
            (
                f"{self.host}; {versions}; {self.date}",
                f"{made}read as {height}x{width}, batches of {self.batch}; the median of "
                f"{self.repeats} x {self.seconds:g} s",
                *("  ".join(c.rjust(w) for c, w in zip(row, widths)) for row in table),
            )
        )


def measure(
    sources: Sequence[tuple[str, Source, int]],
    resolution: tuple[int, int],
    *,
    threads: Sequence[int],
    batch: int,
    seconds: float,
    repeats: int,
    clip: Clip | None = None,
    made: str = "",
    show: bool = True,
) -> Report:
    """Times the stream of each source with each number of threads.

    Args:
      sources: (what to call it, the source, bytes of an item).
      resolution: (height, width) in pixels.
      threads: that read and decode.
      batch: items.
      seconds: of a repeat, at least.
      repeats: of each row.
      clip: what is taken of videos; ``None``: the sources are of pictures.
      made: for the report.
      show: a progress bar on standard error.
    """
    rows = []
    cases = [(*source, count) for source in sources for count in threads]
    for name, source, size, count in tqdm.tqdm(cases, unit=" rows", disable=not show):
        transform = ClipTransform(clip, resolution) if clip else Transform(resolution)
        stream = Stream(source, transform, shape=(1, 1, batch), seed=0, threads=count, prefetch=1)
        with contextlib.closing(stream):
            jax.block_until_ready(next(stream))
            worked, began = time.process_time(), time.perf_counter()
            rates = [_rate(stream, seconds) for _ in range(repeats)]
            cores = (time.process_time() - worked) / (time.perf_counter() - began)
        median = float(np.median(rates))
        rows.append(Row(name, count, size, median, min(rates), max(rates), cores))
    return Report(
        host=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={
            name: importlib.metadata.version(name) for name in ("pillow", "av", "grain", "jax")
        },
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        unit="clips" if clip else "images",
        made=made,
        resolution=resolution,
        batch=batch,
        seconds=seconds,
        repeats=repeats,
        rows=tuple(rows),
    )


def _rate(stream: Stream, seconds: float) -> float:
    """Items a second."""
    began, first = time.perf_counter(), stream.items
    while (passed := time.perf_counter() - began) < seconds or stream.items == first:
        jax.block_until_ready(next(stream))
    return (stream.items - first) / passed


def made_sources(
    folder: pathlib.Path, count: int, resolution: tuple[int, int]
) -> Iterator[tuple[str, Source, int]]:
    """The same pictures in every way that they can be kept, written below a folder."""
    jpegs = folder / "jpegs"
    jpegs.mkdir()
    for number in range(count):
        (jpegs / f"{number:06d}.jpg").write_bytes(picture(number))
    archive = folder / "jpegs.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(jpegs.iterdir()):
            file.write(path, path.name)
    original = sum(path.stat().st_size for path in jpegs.iterdir()) // count
    source = opened("folder", jpegs)
    yield "folder", source, original
    yield "zip", opened("zip", archive), original
    for name, recipe in (
        ("records", Recipe()),
        ("records, png", Recipe(resolution)),
        ("records, jpeg", Recipe(resolution, "jpeg")),
    ):
        out = folder / name
        index = prepare(source, out, recipe, show=False)
        size = sum(shard["bytes"] for shard in index["shards"])
        yield name, opened("records", out), size // count


def picture(seed: int) -> bytes:
    """A JPEG about as hard to decode as a photograph: soft shapes and some grain."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    image = np.asarray(soft.resize(SIZE, Image.Resampling.BICUBIC)) + rng.normal(
        0, 12, (*SIZE[::-1], 1)
    )
    file = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def made_videos(
    folder: pathlib.Path, count: int, resolution: tuple[int, int]
) -> Iterator[tuple[str, Source, int]]:
    """The same videos in every way that they can be kept, written below a folder."""
    frames = [list(video_frames(number)) for number in range(count)]
    for number, pictures in enumerate(frames):
        for kind, gop in (("mp4", 250), ("mp4, short", 12)):
            path = folder / kind / f"{number:04d}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_mp4(path, pictures, gop)
        for time_, pixels in enumerate(pictures):
            path = folder / "folder" / f"{number:04d}" / f"{time_:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=90)
    for kind, name in (
        ("folder", "folders of JPEGs"),
        ("mp4", "mp4, key frame every 250"),
        ("mp4, short", "mp4, key frame every 12"),
    ):
        files = [path for path in (folder / kind).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) // count
        yield name, opened("folder", folder / kind, videos=True), size
    out = folder / "records"
    index = prepare(
        opened("folder", folder / "folder", videos=True), out, VideoRecipe(resolution), show=False
    )
    size = sum(shard["bytes"] for shard in index["shards"])
    yield "records, jpeg", opened("records", out, videos=True), size // count


def video_frames(seed: int, count: int = 180) -> Iterator[np.ndarray]:
    """Soft shapes that drift, and some grain: about as hard to decode as a film."""
    rng = np.random.default_rng(seed)
    width, height = VIDEO_SIZE
    soft = Image.fromarray(rng.integers(0, 256, (24, 44, 3), np.uint8))
    wide = np.asarray(soft.resize((width + count, height), Image.Resampling.BICUBIC))
    for offset in range(count):
        grain = rng.normal(0, 4, (height, width, 1))
        yield np.clip(wide[:, offset : offset + width] + grain, 0, 255).astype(np.uint8)


def write_mp4(path: pathlib.Path, frames: Sequence[np.ndarray], gop: int) -> None:
    """H.264 of 25 frames a second, with a key frame at least every ``gop`` frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = VIDEO_SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def opened(kind: str, path: str | pathlib.Path, name: str = "", videos: bool = False) -> Source:
    """A source, as a config opens it."""
    clip = {"times": "dense"} if videos else None
    return open_source(types.SimpleNamespace(source=kind, path=str(path), name=name, clip=clip))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--resolution", type=parse_resolution, default=(128, 128), help="pixels, or 128x256")
    add("--source", choices=SOURCES, help="measure this data instead")
    add("--path", default="", help="of --source")
    add("--name", default="", help="of a TFDS data set")
    add("--threads", default=f"1,{os.cpu_count()}", help="numbers of threads (%(default)s)")
    add("--batch", type=int, default=64, help="images or clips (%(default)s)")
    add("--clips", choices=CLIPS, help="take clips of videos: 3 sparse frames, or 16 dense ones")
    add("--pictures", type=int, default=500, help="to make (%(default)s)")
    add("--videos", type=int, default=16, help="to make, with --clips (%(default)s)")
    add("--seconds", type=float, default=3.0, help="of a repeat (%(default)s)")
    add("--repeats", type=int, default=3, help="of each row (%(default)s)")
    add("--out", help="file that the line of JSON is appended to")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if args.source:
            try:
                source = opened(args.source, args.path, args.name, bool(args.clips))
                sources, made = [(args.source, source, 0)], ""
            except (ValueError, OSError, ImportError) as error:
                sys.exit(f"error: {error}")
        else:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if args.clips:
                sources = list(made_videos(folder, args.videos, args.resolution))
                made = f"{args.videos} videos of 180 frames of 320x240 pixels"
            else:
                sources = list(made_sources(folder, args.pictures, args.resolution))
                made = f"{args.pictures} JPEGs of {SIZE[0]}x{SIZE[1]} pixels"
        report = measure(
            sources,
            args.resolution,
            threads=[int(count) for count in args.threads.split(",")],
            batch=args.batch,
            seconds=args.seconds,
            repeats=args.repeats,
            clip=CLIPS.get(args.clips),
            made=made,
        )
    print(report)
    line = json.dumps(dataclasses.asdict(report))
    if args.out:
        with pathlib.Path(args.out).open("a") as file:
            file.write(line + "\n")
    else:
        print(line)


if __name__ == "__main__":
    main()
