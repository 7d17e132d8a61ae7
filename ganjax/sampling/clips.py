"""Samples of families of videos as sheets, and as videos of any length.

The draws of such a family have ``"times"``, Float[n, t]: the moments of each clip's frames. The
same draws with other times show the same videos at other moments.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ganjax.sampling.sheets import Sheet, Video

CHUNK = 64  # frames made together, of all videos of a film

Sample = Callable[[Mapping[str, Any]], Float[Array, "n t h w c"]]  # of draws
Moments = Callable[[Int[np.ndarray, "t"]], Float[np.ndarray, "t"]]  # of frames by number


def strips(sample: Sample, draws: Mapping[str, Any]) -> Sheet:
    """A row a clip, its frames from left to right."""
    clips = np.asarray(sample(draws), np.float32)
    return Sheet(clips.reshape(-1, *clips.shape[2:]), clips.shape[1])


def film(
    sample: Sample, draws: Mapping[str, Any], moments: Moments, frames: int, columns: int
) -> Video:
    """Clips that go on side by side, of any length in the memory of a few frames.

    Frames are made some at a time, by one program for all of them.

    Args:
      draws: of the clips; their times are replaced.
      moments: the times of frames by their numbers.
      frames: how many there are.
      columns: clips in a row.
    """
    n = len(draws["times"])
    size = min(frames, max(1, CHUNK // n))

    @functools.lru_cache(maxsize=1)  # frames are asked for in order
    def made(first: int) -> np.ndarray:
        # The last ones are filled up with repeats of the last frame, which nobody sees.
        times = moments(np.minimum(np.arange(first, first + size), frames - 1))
        shown = {**draws, "times": jnp.broadcast_to(jnp.asarray(times), (n, size))}
        return np.asarray(sample(shown), np.float32)

    def sheet(i: int) -> Sheet:
        return Sheet(made(i - i % size)[:, i % size], columns)

    return Video(frames, sheet)
