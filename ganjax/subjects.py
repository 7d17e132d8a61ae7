"""Sets that can be measured: pictures, clips of videos, samples of a model, pairs of its images."""

import functools
import hashlib
import itertools
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Int, UInt8

from ganjax import generate
from ganjax.data.files import Files, Folder, Tree, Zip
from ganjax.data.sources import Options, Source, describe
from ganjax.data.transforms import BrokenItem, Item, Transform
from ganjax.data.videos import Videos
from ganjax.family import Request
from ganjax.metrics.clips import Clips, frames_of, leading_clips, real_clips
from ganjax.metrics.protocols import Probe
from ganjax.parallel.mesh import batch_sharding, make_mesh, replicated
from ganjax.parallel.rules import whole

CHUNK = 64  # pictures read together
CLIPS_CHUNK = 8


@runtime_checkable
class Subject(Protocol):
    """A set of pictures in an order of its own; picture i is the same whoever asks for it.

    Attributes:
      name: for people.
      fingerprint: of the content.
    """

    name: str
    fingerprint: str

    def batches(self, places: range) -> Iterator[Any]:
        """What lies at consecutive places, some at a time: arrays [m, ...], or trees of such."""
        ...

    def asked(self, count: int) -> Int[np.ndarray, "n"] | None:
        """The classes of the first pictures; None where there are no classes."""
        ...

    def describe(self, place: int) -> str:
        """What a person would call what lies there."""
        ...


@runtime_checkable
class Finite(Subject, Protocol):
    """A set with an end."""

    def __len__(self) -> int: ...


class Pictures:
    """The pictures of a source, shuffled by a seed, so that the first n are a fair choice.

    Args:
      source: of pictures.
      transform: what happens to each; without it all must be of one size, and come in colours.
      seed: of the order.
      threads: that read and decode.
      max_broken: broken pictures that are replaced by the next ones before it is an error.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform | None = None,
        seed: int = 0,
        threads: int = 8,
        max_broken: int = 0,
    ):
        self.name = source.name
        looks = (transform.resolution, transform.channels) if transform else "as they are"
        content = getattr(source, "content", source.fingerprint)()
        self.fingerprint = f"{content} {looks} seed {seed}"
        self.classes = source.classes
        self._source, self._transform = source, transform
        self._order = np.random.default_rng(seed).permutation(len(source))
        self._threads, self._max_broken = max(threads, 1), max_broken
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self._order)

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        with ThreadPoolExecutor(self._threads) as pool:
            starts = range(places.start, places.stop, CHUNK)
            parts = [range(start, min(start + CHUNK, places.stop)) for start in starts]
            # The next chunk is read while this one is looked at.
            waiting = [[pool.submit(self._item, place) for place in p] for p in parts[:1]]
            for following in itertools.chain(parts[1:], [range(0)]):
                waiting.append([pool.submit(self._item, place) for place in following])
                yield _stack(self.name, [f.result()["image"] for f in waiting.pop(0)])

    def asked(self, count: int) -> Int[np.ndarray, "n"] | None:
        return self.labels(np.arange(count))

    def labels(self, places: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"] | None:
        """The classes of the pictures at these places; None where there are no classes."""
        if not self.classes:
            return None
        with ThreadPoolExecutor(self._threads) as pool:
            items = pool.map(self._item, places.tolist())
            return np.array([item["label"] for item in items], np.int32)

    def describe(self, place: int) -> str:
        return f"{describe(self._source, int(self._order[place]))} of {self.name}"

    def _item(self, place: int) -> Item:
        for offset in range(len(self._order)):
            index = int(self._order[(place + offset) % len(self._order)])
            try:
                item = self._source[index]
            except BrokenItem as error:
                self._skip(index, error)
                continue
            if self._transform:
                return self._transform(item, _NO_DRAWS)
            return item | {"image": _in_colours(item["image"])}
        raise ValueError(f"no picture of {self.name} can be read")

    def _skip(self, index: int, error: Exception) -> None:
        if index not in self._broken:
            self._broken.add(index)
            if len(self._broken) > self._max_broken:
                raise ValueError(
                    f"{describe(self._source, index)} of {self.name} is broken ({error}); mend it "
                    "or remove it."
                ) from error
            warnings.warn(f"{describe(self._source, index)} is left out: {error}", stacklevel=2)


def _in_colours(image: UInt8[np.ndarray, "*n h w c"]) -> UInt8[np.ndarray, "*n h w 3"]:
    """Three channels: folders of photographs hold grey ones, too."""
    return image.repeat(3, axis=-1) if image.shape[-1] == 1 else image


def _stack(name: str, images: list[np.ndarray]) -> np.ndarray:
    for image in images:
        if image.shape != images[0].shape:
            raise ValueError(
                f"{name} holds pictures of {images[0].shape} and of {image.shape} ([frames,] "
                "height, width, channels); bring all to one size, as "
                "`python -m ganjax.data.prepare` does."
            )
    return np.stack(images)


_NO_DRAWS = np.random.default_rng(0)  # for transforms that draw nothing: no flips


def of_run(source: Source, options: Options, seed: int = 0) -> Pictures:
    """The real pictures as a run sees them, none of them mirrored."""
    transform = Transform(options.resolution, options.channels)
    return Pictures(source, transform, seed, options.threads, options.max_broken)


def of_path(path: str | pathlib.Path, seed: int = 0) -> Pictures:
    """The pictures of a folder or a zip, as they are.

    Raises:
      FileNotFoundError: nothing there, or no pictures in it.
    """
    tree = _tree(path)
    return Pictures(Files(tree, "zip" if isinstance(tree, Zip) else "folder"), seed=seed)


def _tree(path: str | pathlib.Path) -> Tree:
    return Zip(path) if pathlib.Path(path).suffix == ".zip" else Folder(path)


class VideoClips:
    """Clips of videos, [t, h, w, c] each.

    Args:
      videos: of which.
      clips: which videos and frames.
      threads: that read and decode.
    """

    def __init__(self, videos: Videos, clips: Clips, threads: int = 8):
        chosen = hashlib.sha256(clips.videos.tobytes() + clips.frames.tobytes()).hexdigest()[:16]
        self.name, self.fingerprint = videos.name, f"{videos.content()} clips {chosen}"
        self._videos, self._clips, self._threads = videos, clips, threads

    def __len__(self) -> int:
        return len(self._clips)

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m t h w c"]]:
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(places.start, places.stop, CLIPS_CHUNK):
                chosen = range(start, min(start + CLIPS_CHUNK, places.stop))
                yield _stack(self.name, list(pool.map(self._read, chosen)))

    def asked(self, count: int) -> None:
        """Clips of a folder have no classes."""

    def describe(self, place: int) -> str:
        video = self._videos.describe(int(self._clips.videos[place]))
        return f"{video} of {self.name}, from frame {self._clips.frames[place][0]} on"

    def _read(self, place: int) -> np.ndarray:
        video = self._videos.video(int(self._clips.videos[place]))
        return _in_colours(video.read(self._clips.frames[place]))


class Frames:
    """The frames of clips, each as a picture of its own."""

    def __init__(self, clips: VideoClips, frames: int):
        self.name, self.fingerprint = clips.name, f"{clips.fingerprint} as frames"
        self._clips, self._frames = clips, frames

    def __len__(self) -> int:
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


def of_videos(
    path: str | pathlib.Path, clip: tuple[int, int], *, real: bool, count: int | None, seed: int = 0
) -> VideoClips:
    """Clips of the videos in a folder or a zip, as StyleGAN-V's released code takes them.

    Args:
      clip: (frames, stride).
      real: a clip at a random place of each video that is long enough; else the first frames.
      count: of clips; None: of all videos.
      seed: of the places.

    Raises:
      FileNotFoundError: nothing there, or no videos in it.
      ValueError: videos that are too short, or broken.
    """
    videos = Videos(_tree(path))
    most = len(videos) if count is None else count
    try:
        with ThreadPoolExecutor() as pool:  # the timestamps of files are read for it
            lengths = list(pool.map(lambda index: len(videos.video(index)), range(len(videos))))
    except BrokenItem as error:
        raise ValueError(f"{videos.name}: {error}; mend it or remove it.") from error
    if real:
        return VideoClips(videos, real_clips(lengths, *clip, videos=most, seed=seed))
    return VideoClips(videos, leading_clips(lengths, *clip, videos=most))


class Samples:
    """The samples of a model, its averaged generator without truncation.

    Every process makes its own on its own devices; the variables may be split over all of them,
    and every process must make this call.

    Args:
      model: of which.
      seed: of the latents.
      labels: of the samples; None goes round the classes.
      programs: compiled ones of an earlier model of the same family.
    """

    fingerprint = ""

    def __init__(
        self,
        model: generate.Model,
        seed: int = 0,
        labels: Int[np.ndarray, "n"] | None = None,
        programs: generate.Programs | None = None,
    ):
        self.name = f"samples of step {model.step}"
        self._classes = int(model.config.data.get("classes", 0)) or 1
        self._seed, self._labels = seed, labels
        self.model = _local(model, programs)

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        # Labels go round the classes, so this index has the label that is wanted.
        indices = np.asarray(places)
        if self._labels is not None:
            indices = indices * self._classes + self._labels[indices]
        return self.model.batches(indices, self._seed, Request())

    def asked(self, count: int) -> Int[np.ndarray, "n"]:
        if self._labels is None:
            return np.arange(count) % self._classes
        return self._labels[:count]

    def describe(self, place: int) -> str:
        return f"sample {place} ({self.name})"


def _local(model: generate.Model, programs: generate.Programs | None) -> generate.Model:
    """The model on this process's devices, each of which makes a part of a batch."""
    if jax.device_count() == 1:
        return model
    devices = make_mesh({"data": -1}, jax.local_devices())
    programs = programs or generate.Programs(model.family, batch_sharding(devices, leading=0))
    variables: Any = jax.device_get(whole(model.variables))
    return generate.Model(
        model.family,
        jax.device_put(variables, replicated(devices)),
        model.config,
        model.step,
        programs,
    )


class Pairs:
    """The pairs of images that a probe makes of a model.

    What lies at a place is a pair's index and label; the images are made where their features are
    taken, on the devices.

    Attributes:
      make: from `variables` and what lies at some places to their pairs.
      variables: ready for it.

    Args:
      model: of which.
      probe: which function of its family, and its options.
      seed: of the pairs.
      labels: of the pairs; None goes round the classes.
    """

    fingerprint = ""

    def __init__(
        self,
        model: generate.Model,
        probe: Probe,
        seed: int = 0,
        labels: Int[np.ndarray, "n"] | None = None,
    ):
        self.name = f"pairs of step {model.step}"
        self._classes = int(model.config.data.get("classes", 0)) or 1
        self._labels = labels
        function = functools.partial(model.family.probes[probe.name], **probe.options)
        self.make = functools.partial(_make, function)
        ready = _local(model, None).ready(seed, Request())
        self.variables = {"generator": ready, "key": jax.random.key(seed)}

    def batches(self, places: range) -> Iterator[dict[str, Int[np.ndarray, "m"]]]:
        indices = np.arange(places.start, places.stop, dtype=np.int32)
        yield {"index": indices, "label": self._asked(indices)}

    def asked(self, count: int) -> Int[np.ndarray, "n"]:
        return self._asked(np.arange(count))

    def describe(self, place: int) -> str:
        return f"pair {place} ({self.name})"

    def _asked(self, indices: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m"]:
        labels = indices % self._classes if self._labels is None else self._labels[indices]
        return labels.astype(np.int32)


def _make(function: Any, variables: Any, places: Mapping[str, Array]) -> Mapping[str, Array]:
    return function(variables["generator"], variables["key"], places["index"], places["label"])
