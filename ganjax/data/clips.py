"""From a video to the clip that the stream hands out: which frames, and what happens to them.

Samplers of times turn uniform random numbers into frame numbers. They are plain arithmetic on
NumPy or JAX arrays, so that the same rule chooses the frames of real clips here, on the host, and
the times of generated ones inside a jitted step.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Integer, Shaped

from ganjax.data.transforms import BrokenItem, Item, fit

Uniform = Float[Array | np.ndarray, "*n draws"]  # in [0, 1)
Lengths = int | Integer[Array | np.ndarray, "*n"]  # frames of videos
Chosen = Shaped[Array | np.ndarray, "*n frames"]  # whole or real numbers


@runtime_checkable
class Times(Protocol):
    """Which frames of a video make a clip.

    Attributes:
      frames: of a clip.
      least: frames that a video must have.
      draws: uniform random numbers that a clip takes.
    """

    @property
    def frames(self) -> int: ...

    @property
    def least(self) -> int: ...

    @property
    def draws(self) -> int: ...

    def __call__(self, uniform: Uniform, length: Lengths) -> Chosen:
        """Times of clips in frames, ascending, from 0 to ``length - 1``.

        Args:
          uniform: random numbers, from the caller's generator.
          length: of each video, at least `least`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Dense:
    """Consecutive frames, or every ``stride``-th; every place in the video is as likely.

    NOTE: TGANv2's released code never takes the last place of a video.
    """

    frames: int = 16
    stride: int = 1

    draws = 1

    def __post_init__(self) -> None:
        _check(self, "frames", "stride")

    @property
    def least(self) -> int:
        return (self.frames - 1) * self.stride + 1

    def __call__(self, uniform: Uniform, length: Lengths) -> Chosen:
        xp = uniform.__array_namespace__()
        offset = _below(xp, uniform[..., 0], length - self.least + 1)
        return offset[..., None] + self.stride * xp.arange(self.frames, dtype=xp.int32)


@dataclasses.dataclass(frozen=True)
class Sparse:
    """A few frames: the first and the last at a random distance, the others anywhere in between.

    StyleGAN-V's "random" sampling (released code, `sample_frames`; Section 3.3 of the paper).

    Attributes:
      frames: k, 2 or more.
      max_dist: between the first and the last frame.
      dists: distances that are as likely as each other, as far as k frames and the video allow.
        ``None``: all of them. The paper's are ``range(1, 33)``.
      fractional: the first time is a real number, as generated clips have it; the distances are
        whole all the same.
    """

    frames: int = 3
    max_dist: int = 32
    dists: tuple[int, ...] | None = tuple(2**i for i in range(12))
    fractional: bool = False

    def __post_init__(self) -> None:
        _check(self, "max_dist")
        if self.frames < 2 or not self._dists:
            raise ValueError(
                f"{self.frames} sparse frames at distances {self.dists} up to {self.max_dist}: "
                "expected 2 frames or more, and a distance from frames - 1 to max_dist. Set "
                "config.data.clip.frames, dists and max_dist."
            )

    @functools.cached_property
    def _dists(self) -> tuple[int, ...]:
        known = range(1, self.max_dist + 1) if self.dists is None else self.dists
        return tuple(d for d in sorted(set(known)) if self.frames - 1 <= d <= self.max_dist)

    @property
    def least(self) -> int:
        return self._dists[0] + 1

    @property
    def draws(self) -> int:
        return self.frames

    def __call__(self, uniform: Uniform, length: Lengths) -> Chosen:
        xp = uniform.__array_namespace__()
        longest = xp.minimum(length - 1, self.max_dist)
        if self.dists is None:
            # NOTE: the released code's range leaves out the longest.
            longest = xp.maximum(longest - 1, self.least - 1)
        dists = xp.asarray(self._dists, dtype=xp.int32)
        fitting = (dists <= xp.asarray(longest)[..., None]).sum(-1)
        dist = dists[_below(xp, uniform[..., 0], fitting)]
        rest = length - dist
        first = (
            uniform[..., 1] * (rest - 1) if self.fractional else _below(xp, uniform[..., 1], rest)
        )
        # k - 2 of the dist - 1 frames in between: the i-th is any of those not chosen before.
        inner = dist[..., None][..., :0]
        for i in range(self.frames - 2):
            chosen = _below(xp, uniform[..., 2 + i], dist - 1 - i)[..., None]
            for j in range(i):
                chosen = chosen + (chosen >= inner[..., j, None])
            inner = xp.sort(xp.concat([inner, chosen], axis=-1), axis=-1)
        steps = xp.concat([0 * dist[..., None], inner + 1, dist[..., None]], axis=-1)
        return first[..., None] + steps


@dataclasses.dataclass(frozen=True)
class Even:
    """A few frames at equal distances, of which each that fits is as likely.

    StyleGAN-V's "uniform" sampling, where its released code runs.

    Attributes:
      frames: k.
      max_dist: between neighbours; ``None`` for as much as the video allows.
      fractional: as `Sparse`.
    """

    frames: int = 3
    max_dist: int | None = None
    fractional: bool = False

    draws = 2

    def __post_init__(self) -> None:
        _check(self, "frames", *(["max_dist"] if self.max_dist is not None else []))

    @property
    def least(self) -> int:
        return self.frames

    def __call__(self, uniform: Uniform, length: Lengths) -> Chosen:
        xp = uniform.__array_namespace__()
        longest = xp.asarray(length // self.frames)
        if self.max_dist is not None:
            longest = xp.minimum(longest, self.max_dist)
        dist = _below(xp, uniform[..., 0], longest) + 1
        rest = length - dist * (self.frames - 1)
        first = (
            uniform[..., 1] * (rest - 1) if self.fractional else _below(xp, uniform[..., 1], rest)
        )
        return first[..., None] + dist[..., None] * xp.arange(self.frames, dtype=xp.int32)


def _check(times: Any, *names: str) -> None:
    for name in names:
        if getattr(times, name) < 1:
            raise ValueError(
                f"config.data.clip.{name}={getattr(times, name)}: expected a number from 1 on."
            )


def _below(xp: Any, uniform: Any, count: Any) -> Any:
    """A whole number from 0 to ``count - 1``, each as likely."""
    # Never rounded up to ``count``: the largest number below 1 is half an ulp or more too small.
    return (uniform * count).astype(xp.int32)


TIMES = {"dense": Dense, "sparse": Sparse, "even": Even}


@dataclasses.dataclass(frozen=True)
class Clip:
    """``config.data.clip``, checked: what clips are taken of videos.

    Attributes:
      times: which frames.
      max_frames: of longer videos a random part of this length is taken first, and times are
        counted from its start; ``None``: no video is too long.
      rate: frames of the videos a second, by which samples are as fast as they are.
    """

    times: Times
    max_frames: int | None = None
    rate: float = 25.0


def read_clip(config: Any) -> Clip:
    """Reads ``config.data.clip``: ``times`` (of `TIMES`), ``max_frames``, ``rate``, and the
    sampler's fields.

    A field of another sampler is passed over, so that ``times`` can be overridden alone.

    Raises:
      ValueError: a value that cannot be; says what came, what was expected and what to set.
    """
    given = dict(config)
    kind, longest = given.pop("times", None), given.pop("max_frames", None)
    rate = given.pop("rate", Clip.rate)
    if kind not in TIMES:
        raise ValueError(f"config.data.clip.times={kind!r}: expected one of {list(TIMES)}.")
    known = {field.name for sampler in TIMES.values() for field in dataclasses.fields(sampler)}
    if set(given) - known:
        raise ValueError(
            f"config.data.clip has no {sorted(set(given) - known)}; it has times, max_frames, "
            f"rate, {', '.join(sorted(known))}."
        )
    own = {field.name for field in dataclasses.fields(TIMES[kind])}
    times = TIMES[kind](**{name: value for name, value in given.items() if name in own})
    if longest is not None and longest < times.least:
        raise ValueError(
            f"config.data.clip.max_frames={longest}: its clips take {times.least} frames or more."
        )
    if not 0 < rate < math.inf:
        raise ValueError(f"config.data.clip.rate={rate:g}: expected frames a second, above 0.")
    return Clip(times, longest, rate)


class ClipTransform:
    """From a video to a clip of it: frames are chosen, read, and fitted alike.

    Args:
      clip: which frames.
      resolution: (height, width) in pixels.
      channels: 1 or 3.
      flip: mirror half of the clips left to right, all their frames alike.
    """

    def __init__(
        self, clip: Clip, resolution: tuple[int, int], channels: int = 3, flip: bool = False
    ):
        self.clip = clip
        self.resolution = resolution
        self.channels = channels
        self.flip = flip

    def __call__(self, item: Mapping[str, Any], rng: np.random.Generator) -> Item:
        """Reads a clip of ``item["video"]``.

        Args:
          item: of a source of videos: ``{"video": videos.Video, "label": int32 scalar}``.
          rng: a pure function of the run's seed and the item's position in the stream.

        Returns:
          ``clip``: uint8 [t, h, w, c]; ``times``: float32 [t], in frames from the start of the
          video, or of the part that was taken first; ``length``: int32, frames of that; ``label``.

        Raises:
          BrokenItem: a video that is too short, or cannot be decoded.
        """
        video, times = item["video"], self.clip.times
        total = len(video)
        if total < times.least:
            raise BrokenItem(
                f"{video.name}: {total} frames, fewer than the {times.least} of the shortest clip"
            )
        # The order of the draws is the stream: options that draw nothing draw all the same.
        mirrored, place, *uniform = rng.random(2 + times.draws)
        length = min(total, self.clip.max_frames or total)
        start = math.floor(place * (total - length + 1))
        chosen = np.asarray(times(np.asarray(uniform), np.asarray(length)))
        frames = video.read(start + chosen)
        clip = np.stack([fit(frame, self.resolution, self.channels) for frame in frames])
        if self.flip and mirrored < 0.5:
            clip = clip[:, :, ::-1]
        return {
            "clip": clip,
            "times": chosen.astype(np.float32),
            "length": np.asarray(length, np.int32),
            "label": np.asarray(item["label"], np.int32),
        }
