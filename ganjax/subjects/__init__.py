"""Sets that can be measured; what lies at a place is the same whoever asks for it."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int


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


class Nothing:
    """The real side of metrics of samples alone."""

    name = fingerprint = "nothing"

    def __len__(self) -> int:
        return 0

    def batches(self, places: range) -> Iterator[Any]:
        yield from ()

    def asked(self, count: int) -> None:
        """Nothing has no classes."""

    def describe(self, place: int) -> str:
        return f"place {place} of nothing"
