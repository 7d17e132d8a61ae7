"""Frames of mp4, mov, webm, mkv and avi files, by FFmpeg through PyAV.

A file's timestamps are read once, which decodes nothing; after that only what lies between a wanted
frame and the key frame before it is decoded. Files whose packets do not say which frame is shown
when (avi, and VP8 with its hidden frames) are decoded once for it.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

import av
import numpy as np
from av import VideoFrame, VideoStream
from av.container import InputContainer
from jaxtyping import Float, Int, UInt8

from ganjax.data.files import Tree
from ganjax.data.transforms import BrokenItem

SUFFIXES = frozenset(".avi .m4v .mkv .mov .mp4 .webm".split())
# Containers whose every packet says when its frame is shown, also after a seek.
_TIMED = ("mp4", "matroska")
# Codecs whose packets hold a shown frame each, or say that they do not.
_HIDES_FRAMES = ("vp8",)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Which frame of a file is shown when.

    Attributes:
      stamps: of the file's frames, ascending, in its unit of time; ``None`` where they cannot be
        trusted: frames are then counted from the start.
      keys: numbers of the frames at which decoding can begin, ascending.
      shown: which frame of the file is frame i of the video.
      rate: frames of the video a second.
    """

    stamps: Int[np.ndarray, "frames"] | None
    keys: Int[np.ndarray, "keys"]
    shown: Int[np.ndarray, "shown"]
    rate: float


class VideoFile:
    """A video in a file, its frames upright and equally far apart in time.

    A file of variable frame rate is shown at the rate of its median step: frame i is what is on the
    screen at i / rate seconds.

    Args:
      tree: where it is.
      name: its name there.

    Attributes:
      rate: frames a second.

    Raises:
      BrokenItem: not a video, or none that can be read.
      OSError: the file cannot be read.
    """

    def __init__(self, tree: Tree, name: str):
        self.name = name
        self._tree = tree
        self._timeline = self._scan()
        self.rate = self._timeline.rate

    def __len__(self) -> int:
        return len(self._timeline.shown)

    def read(self, frames: Int[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w 3"]:
        """Some frames, in any order.

        Raises:
          BrokenItem: one that cannot be decoded, or frames of several sizes.
          OSError: the file cannot be read.
        """
        wanted, places = np.unique(self._timeline.shown[frames], return_inverse=True)
        with self._opened() as (container, stream):
            pictures = list(self._pictures(container, stream, wanted.tolist()))
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            raise BrokenItem(f"{self.name}: its frames change their size: {sorted(sizes)}")
        return np.stack(pictures)[places]

    def walk(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """All frames in turn, each decoded once."""
        shown = self._timeline.shown
        times = np.bincount(shown)
        with self._opened() as (container, stream):
            wanted = np.flatnonzero(times).tolist()
            for number, picture in zip(wanted, self._pictures(container, stream, wanted)):
                yield from itertools.repeat(picture, int(times[number]))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        try:
            with self._tree.open(self.name) as file, av.open(file, "r") as container:
                if not container.streams.video:
                    raise BrokenItem(f"{self.name}: no video in it")
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1  # many videos are read at once
                yield container, stream
        except av.FFmpegError as error:
            raise BrokenItem(f"{self.name}: {error.strerror}") from error
        except (OSError, BrokenItem):
            raise
        # PyAV raises other things on damaged input, UnicodeDecodeError among them.
        except Exception as error:
            raise BrokenItem(f"{self.name}: {error or type(error).__name__}") from error

    def _scan(self) -> Timeline:
        with self._opened() as (container, stream):
            hides = stream.codec_context.name in _HIDES_FRAMES
            timed = any(kind in container.format.name for kind in _TIMED) and not hides
            unit, rate = float(stream.time_base or 1), float(stream.average_rate or 25)
            packets = [
                (packet.pts, packet.is_keyframe)
                for packet in (container.demux(stream) if timed else ())
                if packet.size and not packet.is_discard
            ]
        stamps = {stamp for stamp, _ in packets}
        if None in stamps or not 0 < len(stamps) == len(packets):
            with self._opened() as (container, stream):
                count = sum(1 for _ in container.decode(stream))
            if not count:
                raise BrokenItem(f"{self.name}: no frames in it")
            return Timeline(None, np.zeros(1, int), np.arange(count), rate)
        packets.sort()
        ascending = np.array([stamp for stamp, _ in packets])
        keys = np.flatnonzero([key for _, key in packets])
        shown, rate = regular((ascending - ascending[0]) * unit, rate)
        return Timeline(ascending, keys, shown, rate)

    def _pictures(
        self, container: InputContainer, stream: VideoStream, wanted: list[int]
    ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Frames of the file, ascending."""
        stamps, keys, position = self._timeline.stamps, self._timeline.keys, -1
        frames = self._numbered(container, stream)
        for number in wanted:
            key = keys[max(0, int(np.searchsorted(keys, number, "right")) - 1)]
            if stamps is not None and position + 1 < key <= number:
                container.seek(int(stamps[key]), stream=stream)
                frames = self._numbered(container, stream)
            position, frame = next(((n, f) for n, f in frames if n >= number), (-1, None))
            if frame is None or position != number or frame.is_corrupt:
                raise BrokenItem(f"{self.name}: its frame {number} cannot be decoded")
            yield self._upright(frame)

    def _numbered(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[tuple[int, VideoFrame]]:
        """What comes next, with its number in the file."""
        stamps = self._timeline.stamps
        if stamps is None:
            yield from enumerate(container.decode(stream))
            return
        for frame in container.decode(stream):
            if frame.pts is not None:
                number = int(np.searchsorted(stamps, frame.pts))
                if number < len(stamps) and stamps[number] == frame.pts:
                    yield number, frame

    def _upright(self, frame: VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        if frame.rotation % 90:
            raise BrokenItem(
                f"{self.name}: it is turned by {frame.rotation} degrees; expected a multiple of 90"
            )
        return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def regular(
    seconds: Float[np.ndarray, "frames"], rate: float
) -> tuple[Int[np.ndarray, "shown"], float]:
    """Frames at equal steps of time.

    Args:
      seconds: when each frame of a file is shown, ascending from 0.
      rate: that the file states, in frames a second.

    Returns:
      Which frame is shown at each step, and the rate of the steps: all in turn at the stated rate,
      or else at their own mean rate, where either is right to half a frame.
    """
    count = len(seconds)
    if count == 1:
        return np.zeros(1, int), rate
    numbers = np.arange(count)
    for even in (rate, (count - 1) / seconds[-1]):
        if (np.abs(seconds * even - numbers) < 0.5).all():
            return numbers, float(even)
    rate = float(1 / np.median(np.diff(seconds)))
    # Half a step more, so that rounding of the stamps decides nothing.
    steps = (np.arange(round(seconds[-1] * rate) + 1) + 0.5) / rate
    return np.searchsorted(seconds, steps, "right") - 1, rate
