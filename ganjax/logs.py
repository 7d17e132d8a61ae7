"""What a run says: numbers to a file and TensorBoard, pictures to a folder, progress to the screen.

Everything is counted in images, the samples of the real stream that the discriminator has seen.
Only process 0 writes; on the others every method does nothing.
"""

import contextlib
import datetime
import io
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from jaxtyping import UInt8
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ganjax.sampling import grid
from ganjax.workdir import write_atomically

METRICS = "metrics.jsonl"
SAMPLES = "samples"
LINE_EVERY = 10.0  # seconds between the lines of a progress that is not a terminal's


class Logger:
    """The log of one run, in its workdir.

    Each line of ``metrics.jsonl`` is ``{"images": ..., "time": seconds since 1970, ...}``.
    A value that is not finite, which JSON cannot hold, is a string: ``"nan"``, ``"inf"``.

    Args:
      workdir: exists.
      images: how many a resumed run had seen; what was logged after that is dropped, because the
        run is about to log it again.
      enabled: the default is process 0.
      stream: the text file that progress goes to; the default is standard error.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        images: int = 0,
        enabled: bool | None = None,
        stream: Any = None,
    ):
        self.workdir = pathlib.Path(workdir)
        self.enabled = jax.process_index() == 0 if enabled is None else enabled
        self._stream = stream or sys.stderr
        self._progress: Progress | None = None
        if not self.enabled:
            return
        (self.workdir / SAMPLES).mkdir(parents=True, exist_ok=True)
        keep_until(self.workdir / METRICS, images)
        self._board = Board(self.workdir, images + 1 if images else None)
        self._lines = open(self.workdir / METRICS, "a", encoding="utf-8")

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # What a full disk leaves unwritten fails again here; the first error is the one to see.
        with contextlib.suppress(*[OSError] if error else []):
            self.close()

    def scalars(self, images: int, values: Mapping[str, Any]) -> None:
        """Append numbers; they survive a kill from here on.

        Raises:
          ValueError: a value that is not one number, or one of the names ``images`` and ``time``.
        """
        if not self.enabled:
            return
        line: dict[str, Any] = {"images": int(images), "time": round(time.time(), 3)}
        for name, value in jax.device_get(dict(values)).items():
            if name in line or np.size(value) != 1:
                raise ValueError(
                    f"{name!r} of shape {np.shape(value)} cannot be logged: a single number is "
                    "wanted, under a name other than 'images' and 'time'."
                )
            number = float(np.asarray(value).reshape(()))
            if math.isfinite(number):
                line[name] = number
                self._board.add(summary.scalar(name, number), int(images))
            else:
                line[name] = str(number)
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        self._board.flush()

    def grid(
        self,
        name: str,
        images: int,
        pictures: UInt8[np.ndarray, "n h w c"],
        columns: int,
        *,
        column_titles: Sequence[str] = (),
        row_titles: Sequence[str] = (),
    ) -> pathlib.Path | None:
        """Draw pictures as one; see :func:`ganjax.sampling.grid.draw`, and :meth:`picture`."""
        if not self.enabled:
            return None
        drawn = grid.draw(pictures, columns, column_titles=column_titles, row_titles=row_titles)
        return self.picture(name, images, drawn)

    def picture(
        self, name: str, images: int, picture: UInt8[np.ndarray, "h w 3"]
    ) -> pathlib.Path | None:
        """Write ``samples/<name>-<images>.png``, whole or not at all, and show it in TensorBoard.

        Returns:
          Its path, on the process that wrote it.
        """
        if not self.enabled:
            return None
        path = self.workdir / SAMPLES / f"{name}-{int(images):09d}.png"
        write_png(path, picture)
        self._board.add(summary.image(name, picture, dataformats="HWC"), int(images))
        self._board.flush()
        return path

    def status(self, text: str) -> None:
        """Say what is going on, on a line of its own."""
        if self.enabled:
            with tqdm.tqdm.external_write_mode(file=self._stream):
                print(text, file=self._stream, flush=True)

    def progress(self, total: int, done: int = 0) -> "Progress":
        """Show how far the run is; call :meth:`Progress.update` on what this returns."""
        self._progress = Progress(total, done, self._stream, self.enabled)
        return self._progress

    def close(self) -> None:
        """End the progress and the files."""
        if self._progress is not None:
            self._progress.close()
        if self.enabled and not self._lines.closed:
            with self._lines:
                self._board.close()


class Board:
    """A TensorBoard file, written in the caller's thread.

    NOTE: tensorboardX's own writer has a thread, which a full disk kills; the run would then wait
    for ever for room in that thread's queue.

    Args:
      workdir: exists.
      purge: the step from which TensorBoard drops what other files of the folder hold.
    """

    def __init__(self, workdir: pathlib.Path, purge: int | None = None):
        self._file = EventsWriter(str(workdir / "events"))
        if purge is not None:
            self._write(Event(step=purge, session_log=SessionLog(status=SessionLog.START)))

    def add(self, shown: Any, step: int) -> None:
        """Write a ``summary.scalar`` or ``summary.image``."""
        self._write(Event(step=step, summary=shown))

    def flush(self) -> None:
        """Let TensorBoard see it."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write_event(event)


class Progress:
    """Images seen, images a second, time left, and the newest numbers.

    A bar on a terminal; elsewhere a line every ten seconds, without control characters.
    """

    def __init__(self, total: int, done: int, stream: Any, enabled: bool = True):
        self.images = done
        self._total, self._stream, self._enabled = total, stream, enabled
        self._numbers = ""
        self._rate: float | None = None
        self._since = (time.monotonic(), done)  # of the last line
        self._bar = None
        if enabled and stream.isatty():
            sized = all(os.get_terminal_size(stream.fileno()))  # else tqdm would show nothing
            self._bar = tqdm.tqdm(
                total=total,
                initial=done,
                unit=" images",
                unit_scale=True,
                dynamic_ncols=sized,
                **({} if sized else {"ncols": 100, "nrows": 24}),
                smoothing=0.05,
                file=stream,
            )

    @property
    def rate(self) -> float | None:
        """Images a second of late; None before it is known."""
        if self._bar is not None:
            return self._bar.format_dict["rate"]
        return self._rate

    def update(self, images: int, numbers: Mapping[str, Any] | None = None) -> None:
        """Move to ``images`` seen in all; show ``numbers`` from now on if there are any."""
        step, self.images = images - self.images, images
        if not self._enabled:
            return
        if numbers:
            shown = (f"{name} {float(number):.3g}" for name, number in numbers.items())
            self._numbers = "  ".join(shown)
            if self._bar is not None:
                self._bar.set_postfix_str(self._numbers, refresh=False)
        if self._bar is not None:
            self._bar.update(step)
        elif step and (time.monotonic() - self._since[0] >= LINE_EVERY or images >= self._total):
            self._line()

    def restart_clock(self) -> None:
        """Leave the time since the last update (a compilation, a picture) out of the rate."""
        self._since = (time.monotonic(), self.images)
        if self._bar is not None:
            self._bar.last_print_t = time.time()

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def _line(self) -> None:
        now, (then, before) = time.monotonic(), self._since
        if self.images > before:
            rate = (self.images - before) / max(now - then, 1e-9)
            self._rate = rate if self._rate is None else 0.5 * (self._rate + rate)
            self._since = (now, self.images)
        text = f"{self.images:,}/{self._total:,} images"
        text += f"  {100 * self.images / max(self._total, 1):.0f}%"
        if self._rate:
            left = round(max(self._total - self.images, 0) / self._rate)
            text += f"  {self._rate:.1f} images/s  {datetime.timedelta(seconds=left)} left"
        print(f"{text}  {self._numbers}".rstrip(), file=self._stream, flush=True)


def write_png(path: pathlib.Path, picture: UInt8[np.ndarray, "h w c"]) -> None:
    """Write a picture so that its name never stands for half of it."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="PNG")
    write_atomically(path, encoded.getvalue())


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; a last line that a kill cut short is left out."""
    return _parse((pathlib.Path(workdir) / METRICS).read_bytes())


def keep_until(file: pathlib.Path, images: int) -> None:
    """Drop the lines of a metrics file beyond ``images``, and a last line that was cut short.

    A run that begins, ``images=0``, drops them all.
    """
    if not file.exists():
        return
    data = file.read_bytes()
    kept = [line for line in _parse(data) if 0 < images >= line["images"]]
    text = "".join(json.dumps(line) + "\n" for line in kept).encode()
    if text != data:
        write_atomically(file, text)


def _parse(data: bytes) -> list[dict[str, Any]]:
    lines = []
    for line in data.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # cut short
            continue
    return lines
