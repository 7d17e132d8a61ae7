"""What training leaves out of videos, generated and real (TGANv2, Sections 3 and 4)."""

from collections.abc import Sequence

import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from ganjax.families.tganv2.blocks import mean_pool

Offset = int | np.integer | Int[Array, ""] | Int[Array, "_"]


def every(
    x: Shaped[Array, "n t *rest"], offset: Offset, frame: int = 2, batch: int = 2
) -> Shaped[Array, "n2 t2 *rest"]:
    """Frames `offset`, `offset + frame`, ... of items 0, `batch`, ... (Eqs. 8 and 9).

    Args:
        offset: below `frame`; one for all videos, or one for each of those that are kept.

    Raises:
        ValueError: an offset that is an array, which `jit` does not know, of frames whose number
            then depends on it.
    """
    x = x[::batch]
    if isinstance(offset, int | np.integer):
        return x[:, offset::frame]
    n, frames, *rest = x.shape
    if frames % frame:
        raise ValueError(
            f"{frames} frames, of which every {frame}th is kept from an offset that is not known"
            f" yet; set frames to a multiple of {frame}"
        )
    folded = x.reshape(n, frames // frame, frame, *rest)
    if not offset.ndim:
        return lax.dynamic_index_in_dim(folded, offset, 2, keepdims=False)
    index = offset.reshape(n, *[1] * (folded.ndim - 1))
    return jnp.take_along_axis(folded, index, axis=2).squeeze(2)


def levels_of(
    clips: Float[Array, "n t h w c"],
    offsets: Sequence[Offset] | Int[Array, "n levels"],
    frames: Sequence[int] = (2, 2, 2),
    batches: Sequence[int] = (2, 2, 2),
) -> tuple[Float[Array, "..."], ...]:
    """Real clips as each sub-discriminator sees them (Section 4.3), the coarsest first.

    A level has twice the pixels of the one before, `1 / frame` of its frames and `1 / batch` of its
    videos; the last one's pixels are the clips'.

    Args:
        offsets: first frames of each level after the first, counted in the frames of the level
            before it: `[n, levels]`, of each video, or a sequence of them, one a level, as `every`
            has them. NOTE: the released code draws those of real videos one by one, those of
            generated ones for the batch as a whole.
        frames, batches: strides, one for each level after the first.

    Raises:
        ValueError: clips whose pixels do not divide; offsets of another number of levels.
    """
    coarsest = 2 ** len(frames)
    if clips.shape[2] % coarsest or clips.shape[3] % coarsest:
        raise ValueError(
            f"clips of {clips.shape[2]}x{clips.shape[3]} pixels for {len(frames) + 1} levels; set"
            f" config.data.resolution to multiples of {coarsest}"
        )
    first: Sequence[Offset] = offsets if isinstance(offsets, Sequence) else list(offsets.T)
    if not len(first) == len(frames) == len(batches):
        raise ValueError(
            f"{len(first)} offsets, {len(frames)} strides of frames, {len(batches)} of the batch;"
            " set as many of each, one for each level after the first"
        )
    levels, reached = [mean_pool(clips, (1, coarsest, coarsest))], 1
    for level, (offset, frame, batch) in enumerate(zip(first, frames, batches), 1):
        reached *= batch
        if isinstance(offset, Array) and offset.ndim:
            offset = offset[::reached]
        clips = every(clips, offset, frame, batch)
        pool = coarsest // 2**level
        levels.append(mean_pool(clips, (1, pool, pool)) if pool > 1 else clips)
    return tuple(levels)
