"""Sheets of samples: what to sample, where it goes, and what to write above and beside it.

A video is a sheet that moves.

A sheet asks its caller for one thing, `sample(z, labels) -> images`, and knows no network.
Labels are class indices, or weights over the classes (rows of a mixture), which is how a class
embedding is interpolated: weights times the table is a straight line between two of its rows.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from ganjax.sampling import interpolation, truncation
from ganjax.sampling.truncation import Key

Labels = Int[Array | np.ndarray, "n"] | Float[Array | np.ndarray, "n classes"]
Sample = Callable[[Array, Array], Array]  # (z [n, d], labels) -> images [n, h, w, c] in [-1, 1]

# Figure 2 of the BigGAN paper.
PAPER_THRESHOLDS = (2.0, 1.5, 1.0, 0.5, 0.04)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Images in reading order: left to right, then top to bottom.

    Attributes:
      images: float32 in [-1, 1].
      columns: images in a row.
      column_titles: one a column, or none at all.
      row_titles: one a row ("" where a row goes on with the block above), or none at all.
    """

    images: Float[np.ndarray, "n h w c"]
    columns: int
    column_titles: tuple[str, ...] = ()
    row_titles: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.images) // self.columns


@dataclasses.dataclass(frozen=True)
class Video:
    """Sheets of one layout that follow one another.

    Attributes:
      frames: how many.
      sheet: ``sheet(i)``, made anew at each call; after the last of a loop comes the first.
    """

    frames: int
    sheet: Callable[[int], Sheet]


def in_chunks(
    sample: Callable[..., Array],
    *draws: Shaped[Array | np.ndarray, "n ..."],
    chunk: int = 64,
) -> Float[np.ndarray, "n h w c"]:
    """`sample(*draws)` over n items in chunks of one size, so that one compiled program serves.

    The last chunk is filled up with repeats of its last item, which are then dropped: harmless
    to a generator in evaluation mode, where no item sees another.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; at least 1 image at a time is wanted")
    n = len(draws[0])
    lengths = [len(draw) for draw in draws]
    if n == 0 or lengths != [n] * len(draws):
        raise ValueError(f"draws of {lengths} items; as many of each, and at least 1, wanted")
    images = []
    for start in range(0, n, chunk):
        rows = jnp.minimum(jnp.arange(start, start + chunk), n - 1)
        made = sample(*(jnp.asarray(draw)[rows] for draw in draws))
        images.append(np.asarray(made, np.float32)[: n - start])
    return np.concatenate(images)


def class_grid(
    sample: Sample,
    key: Key,
    classes: Sequence[int],
    rows: int,
    latent_dim: int,
    *,
    truncation_threshold: float | None = None,
    shared: bool = True,
    names: Sequence[str] = (),
    chunk: int = 64,
) -> Sheet:
    """One class a column.

    Args:
      shared: every image of a row has the row's latent, so that a row shows what the class
        alone changes; else every image has its own.
      names: the names of all classes; the columns' titles (their numbers without it).
    """
    columns = len(classes)
    if shared:
        z = truncation.latents(key, 0, rows, latent_dim, truncation_threshold)
        z = jnp.repeat(z, columns, axis=0)
    else:
        z = truncation.latents(key, 0, rows * columns, latent_dim, truncation_threshold)
    labels = np.tile(np.asarray(classes, np.int32), rows)
    return Sheet(in_chunks(sample, z, labels, chunk=chunk), columns, titles(classes, names))


def truncation_sheet(
    bind: Callable[[float], Sample],
    key: Key,
    classes: Sequence[int],
    rows: int,
    latent_dim: int,
    *,
    thresholds: Sequence[float] = PAPER_THRESHOLDS,
    names: Sequence[str] = (),
    chunk: int = 64,
) -> Sheet:
    """A block of `rows` rows a threshold, one class a column (BigGAN, Figure 2).

    The same items throughout: image (row, column) of one block is that of another with its
    latent squeezed, so that a column read downwards shows variety turn into typicality.

    Args:
      bind: the sampler at a threshold, whose statistics may depend on it.
    """
    columns = len(classes)
    labels = np.tile(np.asarray(classes, np.int32), rows)
    blocks = [
        in_chunks(
            bind(t), truncation.latents(key, 0, len(labels), latent_dim, t), labels, chunk=chunk
        )
        for t in thresholds
    ]
    row_titles = tuple(f"{t:g}" if row == 0 else "" for t in thresholds for row in range(rows))
    return Sheet(np.concatenate(blocks), columns, titles(classes, names), row_titles)


def latent_interpolation(
    sample: Sample,
    key: Key,
    classes: Sequence[int],
    columns: int,
    latent_dim: int,
    *,
    truncation_threshold: float | None = None,
    between: interpolation.Interpolation = interpolation.spherical,
    names: Sequence[str] = (),
    chunk: int = 64,
) -> Sheet:
    """Class fixed, z moves: a row a class, from one latent at the left to another at the right."""
    rows = len(classes)
    ends = truncation.latents(key, 0, 2 * rows, latent_dim, truncation_threshold)
    z = interpolation.path(ends[0::2], ends[1::2], columns, between)  # [rows, columns, d]
    labels = np.repeat(np.asarray(classes, np.int32), columns)
    images = in_chunks(sample, z.reshape(rows * columns, latent_dim), labels, chunk=chunk)
    return Sheet(images, columns, (), titles(classes, names))


def class_interpolation(
    sample: Sample,
    key: Key,
    pairs: Sequence[tuple[int, int]],
    columns: int,
    latent_dim: int,
    num_classes: int,
    *,
    truncation_threshold: float | None = None,
    names: Sequence[str] = (),
    chunk: int = 64,
) -> Sheet:
    """z fixed, the class moves: a row a pair of classes, from the first to the second.

    `sample` is called with mixtures, Float[n, num_classes]: the class embedding goes straight
    from one to the other.
    """
    rows = len(pairs)
    z = truncation.latents(key, 0, rows, latent_dim, truncation_threshold)
    ends = jax.nn.one_hot(np.asarray(pairs, np.int32), num_classes)  # [rows, 2, classes]
    mixtures = interpolation.path(ends[:, 0], ends[:, 1], columns, interpolation.linear)
    images = in_chunks(
        sample,
        jnp.repeat(z, columns, axis=0),
        mixtures.reshape(rows * columns, num_classes),
        chunk=chunk,
    )
    first, second = zip(*pairs)
    row_titles = tuple(f"{a} to {b}" for a, b in zip(titles(first, names), titles(second, names)))
    return Sheet(images, columns, (), row_titles)


def cycle(
    blend: Callable[[Float[np.ndarray, "k"]], Sample],
    anchors: Float[Array, "n k d"],
    labels: Labels,
    frames: int,
    columns: int,
    column_titles: Sequence[str] = (),
    chunk: int = 64,
) -> Video:
    """Every image goes round on a smooth closed path through k latents of its own.

    Args:
      blend: ``blend(weights)`` is the sampler of anchors [n, k, d] that are mixed so.
    """

    def sheet(i: int) -> Sheet:
        weights = interpolation.cycle(anchors.shape[1], i / frames)
        images = in_chunks(blend(weights), anchors, labels, chunk=min(chunk, len(labels)))
        return Sheet(images, columns, tuple(column_titles))

    return Video(frames, sheet)


def latent_cycle(
    sample: Sample,
    key: Key,
    classes: Sequence[int],
    rows: int,
    latent_dim: int,
    *,
    frames: int,
    anchors: int,
    truncation_threshold: float | None = None,
    column_titles: Sequence[str] = (),
) -> Video:
    """One class a column, fixed; z goes round, as long as its anchors are."""
    labels = np.tile(np.asarray(classes, np.int32), rows)
    z = truncation.latents(key, 0, len(labels) * anchors, latent_dim, truncation_threshold)

    def blend(weights: np.ndarray) -> Sample:
        return lambda z, labels: sample(interpolation.on_sphere(weights, z), labels)

    z = z.reshape(len(labels), anchors, latent_dim)
    return cycle(blend, z, labels, frames, len(classes), column_titles)


def titles(classes: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes among those of all; their numbers where these are not known."""
    return tuple(names[i] if names else str(i) for i in classes)
