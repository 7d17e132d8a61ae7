"""What several processes do together when they measure: share the samples, merge what they saw.

Each process must make each of these calls, in the same order. With one process they do nothing.
Numbers travel as bytes, so that float64 arrives as it was sent.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from ganjax.metrics.frechet import Moments


def share(count: int) -> range:
    """Which of `count` samples this process sees to: consecutive ones, almost as many as others.

    Raises:
      ValueError: fewer samples than processes; on every process alike.
    """
    processes, process = jax.process_count(), jax.process_index()
    if count < processes:
        raise ValueError(
            f"{count} samples cannot be shared by {processes} processes; ask for {processes} or"
            " more, or use fewer processes"
        )
    return range(count * process // processes, count * (process + 1) // processes)


def merge_moments(moments: Moments) -> Moments:
    """The moments of all processes' samples together, the same bits on each process."""
    merged = Moments.empty(moments.mean.size)
    for process in range(jax.process_count()):
        sent = {
            name: _sent_by(process, array, array.shape, array.dtype)
            for name, array in moments.to_arrays().items()
        }
        merged.merge(Moments.from_arrays(sent))
    return merged


def gather_rows(rows: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "m ..."]:
    """The rows of all processes, those of process 0 first, whole on each process.

    After `share` that is the order of the samples. What it gathers must fit in memory; one process
    gets its own rows back, which may be a file that is mapped.
    """
    if jax.process_count() == 1:
        return rows
    counts = [
        int(_sent_by(process, np.array(len(rows)), (), np.dtype(np.int64)))
        for process in range(jax.process_count())
    ]
    parts = [
        _sent_by(process, rows, (count, *rows.shape[1:]), rows.dtype)
        for process, count in enumerate(counts)
    ]
    return np.concatenate(parts)


def of_first(tree: Any) -> Any:
    """A tree of process 0's arrays and numbers, as NumPy arrays on each process."""

    def sent(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return _sent_by(0, array, array.shape, array.dtype)

    return jax.tree.map(sent, tree)


def all_agree(flag: bool) -> bool:
    """Whether it is true on every process."""
    return all(
        bool(_sent_by(process, np.array(flag), (), np.dtype(bool)))
        for process in range(jax.process_count())
    )


def _sent_by(
    process: int, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """One process's array of this shape, on all of them."""
    if jax.process_count() == 1:
        return array
    source = jax.process_index() == process
    data = np.ascontiguousarray(array).tobytes() if source else bytes(dtype.itemsize * _size(shape))
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(data, np.uint8), is_source=source)
    return np.frombuffer(np.asarray(sent).tobytes(), dtype).reshape(shape)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
