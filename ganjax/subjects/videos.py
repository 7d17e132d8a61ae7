"""Clips and frames of videos: of a run's source, of a folder or of a zip."""

import hashlib
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from ganjax.data.sources import Options
from ganjax.data.transforms import BrokenItem, fit
from ganjax.data.videos import Video, Videos
from ganjax.metrics import clips as choosing
from ganjax.metrics import protocols
from ganjax.metrics.clips import Clips, frames_of
from ganjax.subjects import Finite, Subject
from ganjax.subjects.pictures import in_colours, stack, tree_of

CLIPS_CHUNK = 8  # clips read together
FRAMES_CHUNK = 64  # frames of a video read together


@runtime_checkable
class VideoSource(Protocol):
    """A source whose items are videos."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def video(self, index: int) -> Video: ...

    def describe(self, index: int) -> str: ...

    def fingerprint(self) -> str: ...


class Seen:
    """Videos as they are looked at.

    Args:
      source: of the videos.
      options: of the run whose resolution and channels they get; None: as they are, in colours.
      threads: that read and decode.

    Attributes:
      lengths: frames of each video.

    Raises:
      ValueError: a video that is broken.
    """

    def __init__(self, source: VideoSource, options: Options | None = None, threads: int = 8):
        looks = (options.resolution, options.channels) if options else "as they are"
        self.source, self._options, self._threads = source, options, max(threads, 1)
        self.name = source.name
        self.fingerprint = f"{getattr(source, 'content', source.fingerprint)()} {looks}"
        try:
            with self.pool() as pool:  # the timestamps of files are read for it
                lengths = pool.map(lambda index: len(source.video(index)), range(len(source)))
                self.lengths = np.array(list(lengths), np.int64)
        except BrokenItem as error:
            raise ValueError(f"{self.name}: {error}; mend it or remove it.") from error

    def pool(self) -> ThreadPoolExecutor:
        """Threads to read with."""
        return ThreadPoolExecutor(self._threads)

    def read(self, video: int, frames: Int[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w c"]:
        """Some frames of a video.

        Raises:
          ValueError: they are broken.
        """
        try:
            found = self.source.video(video).read(frames)
        except BrokenItem as error:
            raise ValueError(f"{self.name}: {error}; mend it or remove it.") from error
        if self._options is None:
            return in_colours(found)
        looks = self._options.resolution, self._options.channels
        return np.stack([fit(frame, *looks) for frame in found])


class VideoClips:
    """Clips of videos, [t, h, w, c] each.

    Args:
      seen: the videos.
      clips: which of them and which frames.
    """

    def __init__(self, seen: Seen, clips: Clips):
        chosen = hashlib.sha256(clips.videos.tobytes() + clips.frames.tobytes()).hexdigest()[:16]
        self.name, self.fingerprint = seen.name, f"{seen.fingerprint} clips {chosen}"
        self._seen, self._clips = seen, clips

    def __len__(self) -> int:
        return len(self._clips)

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m t h w c"]]:
        with self._seen.pool() as pool:
            for start in range(places.start, places.stop, CLIPS_CHUNK):
                chosen = range(start, min(start + CLIPS_CHUNK, places.stop))
                yield stack(self.name, list(pool.map(self._read, chosen)))

    def asked(self, count: int) -> None:
        """The classes of real clips are nobody's wish."""

    def describe(self, place: int) -> str:
        video = self._seen.source.describe(int(self._clips.videos[place]))
        return f"{video} of {self.name}, from frame {self._clips.frames[place][0]} on"

    def _read(self, place: int) -> np.ndarray:
        return self._seen.read(int(self._clips.videos[place]), self._clips.frames[place])


class Frames:
    """The frames of clips, each as a picture of its own.

    Args:
      clips: which may have no end, as samples have none.
      frames: of each.
    """

    def __init__(self, clips: Subject, frames: int):
        self.name = clips.name
        self.fingerprint = clips.fingerprint and f"{clips.fingerprint} as frames"
        self._clips, self._frames = clips, frames

    def __len__(self) -> int:
        assert isinstance(self._clips, Finite)
        return len(self._clips) * self._frames

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        first, last = places.start // self._frames, -(-places.stop // self._frames)
        place = first * self._frames
        for clips in self._clips.batches(range(first, last)):
            frames = frames_of(clips)
            yield frames[max(0, places.start - place) : places.stop - place]
            place += len(frames)

    def asked(self, count: int) -> None:
        """Frames have no classes."""

    def describe(self, place: int) -> str:
        return f"frame {place % self._frames} of {self._clips.describe(place // self._frames)}"


class EveryFrame:
    """All frames of all videos, one video after the other, each as a picture of its own.

    Args:
      seen: the videos.
    """

    def __init__(self, seen: Seen):
        self.name, self.fingerprint = seen.name, f"{seen.fingerprint} every frame"
        self._seen = seen
        self._ends = np.cumsum(seen.lengths)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        parts = list(self._parts(places))
        with self._seen.pool() as pool:
            for start in range(0, len(parts), CLIPS_CHUNK):
                read = pool.map(lambda part: self._seen.read(*part), parts[start:][:CLIPS_CHUNK])
                frames = [frame for part in read for frame in part]
                if frames:
                    yield stack(self.name, frames)

    def asked(self, count: int) -> None:
        """Frames have no classes."""

    def describe(self, place: int) -> str:
        video, frame = self._at(place)
        return f"frame {frame} of {self._seen.source.describe(video)} of {self.name}"

    def _parts(self, places: range) -> Iterator[tuple[int, Int[np.ndarray, "t"]]]:
        """Frames of one video that are read together."""
        place = places.start
        while place < places.stop:
            video, frame = self._at(place)
            last = min(frame + FRAMES_CHUNK, int(self._seen.lengths[video]))
            last = min(last, frame + places.stop - place)
            yield video, np.arange(frame, last)
            place += last - frame

    def _at(self, place: int) -> tuple[int, int]:
        """Video and frame."""
        video = int(np.searchsorted(self._ends, place, side="right"))
        return video, place - int(self._ends[video] - self._seen.lengths[video])


def real(seen: Seen, protocol: protocols.Protocol, count: int | None, seed: int = 0) -> Finite:
    """What a protocol looks at in real videos.

    Args:
      count: of clips at most; None: of all videos.
      seed: of the places of clips.

    Raises:
      ValueError: no video is long enough.
    """
    clip = protocol.clip
    assert clip is not None
    if clip.reals == "frames":
        return EveryFrame(seen)
    choose = choosing.window_clips if clip.reals == "windows" else choosing.real_clips
    most = len(seen.lengths) if count is None else count
    chosen = choose(seen.lengths, clip.frames, clip.stride, most, seed)
    return _looked_at(VideoClips(seen, chosen), protocol)


def leading(seen: Seen, protocol: protocols.Protocol, count: int | None) -> Finite:
    """The first frames of generated videos, as StyleGAN-V's released code takes them.

    Args:
      count: of clips at most; None: of all videos.

    Raises:
      ValueError: a video that is too short.
    """
    clip = protocol.clip
    assert clip is not None
    most = len(seen.lengths) if count is None else count
    chosen = choosing.leading_clips(seen.lengths, clip.frames, clip.stride, most)
    return _looked_at(VideoClips(seen, chosen), protocol)


def _looked_at(clips: VideoClips, protocol: protocols.Protocol) -> VideoClips | Frames:
    assert protocol.clip is not None
    return Frames(clips, protocol.clip.frames) if protocol.sees_frames else clips


def of_path(path: str | pathlib.Path) -> Seen:
    """The videos of a folder or a zip, as they are.

    Raises:
      FileNotFoundError: nothing there, or no videos in it.
    """
    return Seen(Videos(tree_of(path)))


def of_run(source: VideoSource, options: Options) -> Seen:
    """The videos as a run sees them, none of them mirrored."""
    return Seen(source, options, options.threads)


def drawn_labels(source: VideoSource, count: int, seed: int) -> Int[np.ndarray, "n"] | None:
    """The classes of random videos, drawn with replacement; None where there are none."""
    if not getattr(source, "classes", ()):
        return None
    chosen = np.random.default_rng([seed, 1]).integers(len(source), size=count)
    labels = {int(index): int(source[int(index)]["label"]) for index in np.unique(chosen)}
    return np.array([labels[index] for index in chosen.tolist()], np.int32)
