"""Features of a set as metrics want them: moments of streams, or rows in a file on disk."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from ganjax.metrics.features import Accumulator
from ganjax.metrics.frechet import Moments
from ganjax.metrics.hosts import gather_rows, merge_moments

Features = Mapping[str, Mapping[str, np.ndarray]]  # network -> feature -> [m, ...]


@dataclasses.dataclass(frozen=True)
class Want:
    """A feature of the first ``count`` samples.

    Attributes:
      network: name of the network.
      feature: of it.
      count: of samples.
      form: "moments" of the samples of even and of odd places, or all "rows".
    """

    network: str
    feature: str
    count: int
    form: Literal["moments", "rows"]


@dataclasses.dataclass(frozen=True)
class Halves:
    """Moments of a set's two disjoint halves, the samples of even and of odd places."""

    even: Moments
    odd: Moments

    @property
    def whole(self) -> Moments:
        """Of the set."""
        whole = Moments.empty(self.even.mean.size)
        whole.merge(self.even)
        whole.merge(self.odd)
        return whole

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For a file; `from_arrays` reads it back."""
        return {
            f"{half}_{name}": array
            for half in ("even", "odd")
            for name, array in getattr(self, half).to_arrays().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Halves":
        def of(half: str) -> Moments:
            start = f"{half}_"
            own = {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
            return Moments.from_arrays(own)

        return cls(of("even"), of("odd"))


Collected = Halves | Shaped[np.ndarray, "n ..."]


def collect(
    features: Iterable[Features],
    start: int,
    wants: Iterable[Want],
    folder: pathlib.Path,
    describe: Callable[[int], str] = "sample {}".format,
) -> dict[Want, Collected]:
    """What is wanted, from one pass over the features of this process's share of a set.

    Memory: moments, and `features.ROWS` features for each; rows go into files that are mapped.
    Under several processes rows are gathered in memory, and every process makes this call.

    Args:
      features: batches, in the samples' order.
      start: place in the set of the first of them.
      wants: of which every sample of the set that they count is in some process's share.
      folder: for the rows; they live as long as it does.
      describe: what a person would call the sample at a place in the set.

    Raises:
      ValueError: features that are not finite, or of two widths.
    """
    sinks = {want: _sink(want, folder / f"{number}.rows") for number, want in enumerate(wants)}
    for batch in features:
        length = 0
        for want, sink in sinks.items():
            rows = batch[want.network][want.feature]
            length = len(rows)
            finite = np.isfinite(rows.reshape(length, math.prod(rows.shape[1:]))).all(axis=1)
            if not finite.all():
                raise ValueError(
                    f"{want.network} gives features that are not finite, first of "
                    f"{describe(start + int(np.argmin(finite)))} ({np.sum(~finite)} of {length} in "
                    "this batch). Look at it; if it is as it should be, the network's weights "
                    "are not."
                )
            sink.add(rows[: max(0, want.count - start)], start)
        start += length
    return {want: sink.result() for want, sink in sinks.items()}


class _Moments:
    def __init__(self) -> None:
        self._halves = Accumulator(), Accumulator()
        self._counts = [0, 0]
        self._width = 0

    def add(self, rows: np.ndarray, start: int) -> None:
        self._width = math.prod(rows.shape[1:])
        for parity, half in enumerate(self._halves):
            if len(part := rows[(parity - start) % 2 :: 2]):
                half.update(part)
                self._counts[parity] += len(part)

    def result(self) -> Halves:
        # The first samples that some metric counts may all be another process's.
        even, odd = (
            merge_moments(half.moments() if count else Moments.empty(self._width))
            for half, count in zip(self._halves, self._counts)
        )
        return Halves(even, odd)


class _Rows:
    def __init__(self, path: pathlib.Path):
        self._path, self._shape, self._file = path, (), open(path, "wb")
        self._count = 0

    def add(self, rows: np.ndarray, start: int) -> None:
        del start
        self._shape = rows.shape[1:]
        self._count += len(rows)
        self._file.write(np.ascontiguousarray(rows, np.float32).tobytes())

    def result(self) -> np.ndarray:
        self._file.close()
        shape = (self._count, *self._shape)
        rows = np.memmap(self._path, np.float32, "r", shape=shape) if self._count else None
        return gather_rows(np.zeros(shape, np.float32) if rows is None else rows)


def _sink(want: Want, path: pathlib.Path) -> _Moments | _Rows:
    return _Moments() if want.form == "moments" else _Rows(path)
