"""Which clips of videos a Frechet video distance compares, and how: StyleGAN-V's protocol.

FVD is `frechet.distance(..., ddof=0)` of I3D's features of clips (Unterthiner et al. 2018), the
frame FID of videos that of Inception's features of all their frames. Numbers differ between codes
mostly by which clips are taken (Skorokhodov et al. 2022, released code). Here clip i is a pure
function of (seed, i): the same on any number of hosts.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8

from ganjax.metrics.frechet import Moments, distance

VIDEOS = 2048


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips to be read.

    Attributes:
      videos: of which video each is, by its place in the data set.
      frames: which frames of that video.
    """

    videos: Int[np.ndarray, "n"]
    frames: Int[np.ndarray, "n t"]

    def __len__(self) -> int:
        return len(self.videos)


def real_clips(
    lengths: Sequence[int] | Int[np.ndarray, "v"],
    frames: int,
    stride: int = 1,
    videos: int = VIDEOS,
    seed: int = 0,
) -> Clips:
    """One clip at a random place of each of the first videos, as the released code takes them.

    Videos shorter than frames x stride are dropped first. A data set of fewer than `videos` gives
    fewer clips: no video gives two. The last frame may be any of the video's up to its very last.

    Args:
      lengths: frames of each video, in the data set's order.
      frames: of a clip.
      stride: every how many-th frame is taken.
      videos: at most so many clips.
      seed: of the places. NOTE: the released code leaves them to the state of Python's generator.

    Raises:
      ValueError: no video is long enough.
    """
    known = np.asarray(lengths, np.int64)
    chosen = _long_enough(known, frames, stride, videos, frames * stride)[:videos]
    offsets = [
        np.random.default_rng([seed, 1, i]).integers(known[video] - (frames - 1) * stride)
        for i, video in enumerate(chosen)
    ]
    return Clips(chosen, np.array(offsets)[:, None] + fake_times(frames, stride))


def window_clips(
    lengths: Sequence[int] | Int[np.ndarray, "v"],
    frames: int,
    stride: int = 1,
    count: int = VIDEOS,
    seed: int = 0,
) -> Clips:
    """Random clips of any videos, as DIGAN's code takes them of UCF-101.

    All places of all videos are as likely, so that a long video gives more clips; no place is taken
    twice. NOTE: of folders of frames that code takes only clips that do not overlap.

    Args:
      count: at most so many clips.

    Raises:
      ValueError: no video is long enough.
    """
    known = np.asarray(lengths, np.int64)
    reach = (frames - 1) * stride
    videos = _long_enough(known, frames, stride, count, reach + 1)
    ends = np.cumsum(known[videos] - reach)
    total = int(ends[-1])
    places = np.random.default_rng([seed, 2]).choice(total, min(count, total), replace=False)
    row = np.searchsorted(ends, places, side="right")
    offsets = places - (ends[row] - (known[videos[row]] - reach))
    return Clips(videos[row], offsets[:, None] + fake_times(frames, stride))


def _long_enough(
    known: np.ndarray, frames: int, stride: int, count: int, least: int
) -> Int[np.ndarray, "v"]:
    """The videos of at least so many frames."""
    if frames < 1 or stride < 1 or count < 1:
        raise ValueError(
            f"frames={frames}, stride={stride}, clips={count}; positive numbers are wanted"
        )
    found = np.flatnonzero(known >= least)
    if not len(found):
        longest = (
            f"the longest of {len(known)} has {known.max()}" if len(known) else "there is none"
        )
        raise ValueError(
            f"clips of {frames} frames, every {_ordinal(stride)}, need videos of {least} frames,"
            f" but {longest}; give longer videos, or ask for fewer frames"
        )
    return found


def leading_clips(
    lengths: Sequence[int] | Int[np.ndarray, "v"],
    frames: int,
    stride: int = 1,
    videos: int = VIDEOS,
) -> Clips:
    """The first frames of the first videos: how generated videos are read from disk.

    Raises:
      ValueError: a video that is too short; unlike real ones, none is dropped.
    """
    known = np.asarray(lengths, np.int64)[:videos]
    short = np.flatnonzero(known < frames * stride)
    if len(short) or not len(known):
        which = f"video {short[0]} has {known[short[0]]}" if len(short) else "there is no video"
        raise ValueError(
            f"generated clips of {frames} frames, every {_ordinal(stride)}, need videos of"
            f" {frames * stride} frames, but {which}; generate longer ones"
        )
    times = np.tile(fake_times(frames, stride), (len(known), 1))
    return Clips(np.arange(len(known)), times)


def fake_times(frames: int, stride: int = 1) -> Int[np.ndarray, "t"]:
    """The times of a generated clip, in frames: it always begins at 0."""
    return np.arange(frames, dtype=np.int64) * stride


def to_uint8(images: Float[Array | np.ndarray, "*shape"]) -> UInt8[Array | np.ndarray, "*shape"]:
    """[-1, 1] to 0 ... 255 as NVIDIA's and StyleGAN-V's metrics do: x 127.5 + 128, cut off."""
    return (images * 127.5 + 128).clip(0, 255).astype(np.uint8)


def frames_of(clips: Shaped[Any, "n t h w c"]) -> Shaped[Any, "m h w c"]:
    """All frames of clips as images, one video after the other, for the frame FID."""
    return clips.reshape(-1, *clips.shape[2:])


def frechet_video_distance(real: Moments, fake: Moments) -> float:
    """FVD: the Frechet distance of population covariances (over n), as StyleGAN-V takes them.

    Others (DIGAN, VideoGPT) take n - 1: `frechet.distance`.
    """
    return distance(real, fake, ddof=0)


def _ordinal(number: int) -> str:
    return {1: "one", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
