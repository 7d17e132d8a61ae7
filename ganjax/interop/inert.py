"""Pickles as inert data.

A pickle is a program: it names functions, calls them, and sets the state of what they return. Here
each name that a format needs stands for code of ours, every other one is refused, and nothing that
a pickle can name or make takes a state unless its class says how: a pickle could else change our
classes, or a tensor after its numbers were checked.
"""

import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any

# What reading a damaged pickle may raise, beside the ValueErrors of ours.
DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    struct.error,
    RecursionError,
)


class Inert:
    """Takes no state from a pickle."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ValueError(
            f"its pickle sets the state of a {type(self).__name__.lstrip('_')}, which no such file"
            " does"
        )


class Constructor(Inert):
    """What stands for a function or a class that a pickle calls."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)


class Dict(dict[Any, Any]):
    """What stands for an OrderedDict: attributes, such as a state dict's `_metadata`, are lost."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        del state


class Sealed(type):
    """Classes that a pickle may name, and not change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise ValueError(f"its pickle sets {name!r} of a class, which no such file does")


class Unpickler(pickle.Unpickler):
    """Resolves the names that it knows.

    Args:
        known: what stands for (module, name): a `Constructor`, another inert thing, or a class
            that cannot be changed, made by the pickle without arguments.
        advice: said after a refusal.
    """

    def __init__(self, file: Any, known: Mapping[tuple[str, str], Any], advice: str):
        super().__init__(file, encoding="utf-8")
        self._known = known
        self._advice = advice

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise ValueError(
                f"its pickle asks for {module}.{name}, and nothing of it was run; {self._advice}"
            )
        return self._known[module, name]
