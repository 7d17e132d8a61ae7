"""NVIDIA's `network-snapshot-*.pkl` of stylegan2-ada-pytorch and stylegan3, without running them.

Such a pickle carries the source code of its networks, and NVIDIA's loader executes it. Here the
networks are read as what they hold: arguments, attributes, tensors. The source code is dropped.
Those of StyleGAN-V's released code, which is made from theirs, are read, too.
"""

import dataclasses
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ganjax.interop import omegaconf
from ganjax.interop.inert import DAMAGE, Constructor, Inert, Sealed, Unpickler
from ganjax.interop.torch_pickle import KNOWN as TORCH
from ganjax.interop.torch_pickle import Storage, Tensor, read_legacy

NETWORKS = ("G", "D", "G_ema", "augment_pipe")
# Of PyTorch and of StyleGAN-V, whose classes carry no source code.
UNMARKED = (
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.sparse.Embedding",
    "torch.nn.modules.rnn.LSTM",
    "training.layers.TemporalDifferenceEncoder",
    "src.training.layers.TemporalDifferenceEncoder",
)
DTYPES = "?bhilqBHILQefdiu"  # NumPy's letters of plain numbers


@dataclasses.dataclass(slots=True)
class Module(Inert):
    """A network, or a part of one, as a pickle holds it.

    Attributes:
        name: of its class.
        attributes: plain values by name, `_init_kwargs` included.
        parts: modules inside of it.
        tensors: its own parameters and buffers, but those that no state dict has.
    """

    name: str
    attributes: dict[str, Any]
    parts: dict[str, "Module"]
    tensors: dict[str, Tensor]

    def state(self) -> dict[str, np.ndarray]:
        """The state dict."""
        return dict(self._state(""))

    def part(self, path: str) -> "Module":
        """The module at a path, as `synthesis.b4`.

        Raises:
            ValueError: there is none.
        """
        module = self
        for name in path.split("."):
            if name not in module.parts:
                raise ValueError(
                    f"its {self.name} has no part {path!r}; expected a network of"
                    " stylegan2-ada-pytorch or stylegan3"
                )
            module = module.parts[name]
        return module

    def _state(self, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
        for name, tensor in self.tensors.items():
            yield prefix + name, tensor.numbers()
        for name, part in self.parts.items():
            yield from part._state(f"{prefix}{name}.")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What training has written.

    Attributes:
        networks: of `NETWORKS`, as far as the file has them.
        data: the arguments of the data set.
    """

    networks: dict[str, Module]
    data: dict[str, Any]


def read_snapshot(path: str | Path) -> Snapshot:
    """The networks of a snapshot.

    Raises:
        ValueError: the pickle names something other than such networks hold, is of the TensorFlow
            releases, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file).load()
        return _snapshot(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except DAMAGE as error:
        raise ValueError(
            f"{path}: not a readable snapshot ({type(error).__name__}: {error}); expected a"
            " network-snapshot-*.pkl of stylegan2-ada-pytorch or stylegan3"
        ) from error


def _snapshot(content: Any) -> Snapshot:
    if not isinstance(content, Mapping):
        raise ValueError(
            f"it holds a {type(content).__name__}; expected a dictionary with G, D and G_ema, as"
            " the training of stylegan2-ada-pytorch and stylegan3 writes"
        )
    networks = {name: content[name] for name in NETWORKS if content.get(name) is not None}
    wrong = [name for name, network in networks.items() if not isinstance(network, Module)]
    if wrong or not networks.keys() - {"augment_pipe"}:
        raise ValueError(
            f"its {', '.join(wrong) or list(content)} are no networks; expected G, D and G_ema, as"
            " the training of stylegan2-ada-pytorch and stylegan3 writes"
        )
    return Snapshot(networks, dict(content.get("training_set_kwargs") or {}))


def _module(meta: Any) -> Module:
    """What stands for `torch_utils.persistence._reconstruct_persistent_obj`."""
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise ValueError("one of its objects is no network; the file is damaged, or a forgery")
    name, state = meta["class_name"], meta["state"]
    if not isinstance(name, str) or not isinstance(state, dict):
        raise ValueError("one of its networks has no state; the file is damaged, or a forgery")
    return _of_state(name, state)


def _of_state(name: str, state: Mapping[str, Any]) -> Module:
    parts, tensors = {}, {}
    for part, module in state.get("_modules", {}).items():
        if module is not None:
            inner = _checked(module, Module, f"the part {part} of its {name}")
            if isinstance(inner, _Unmarked) and not inner.attributes:
                raise ValueError(f"the part {part} of its {name} is empty, or lies in itself")
            parts[_name(part)] = inner
    unsaved = state.get("_non_persistent_buffers_set", ())
    for group in ("_parameters", "_buffers"):
        for key, tensor in state.get(group, {}).items():
            if tensor is not None and key not in unsaved:
                tensors[_name(key)] = _checked(tensor, Tensor, f"the tensor {key} of its {name}")
    apart = {"_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"}
    attributes = {_name(key): value for key, value in state.items() if key not in apart}
    return Module(name, attributes, parts, tensors)


class _Unmarked(Module, metaclass=Sealed):
    """What stands for a module that is pickled as any object is: first empty, then with a state.

    One that has no attributes is empty; PyTorch's have `training` at least.
    """

    __slots__ = ()

    def __new__(cls) -> "_Unmarked":
        made = super().__new__(cls)
        Module.__init__(made, cls.__name__, {}, {}, {})
        return made

    def __setstate__(self, state: Any) -> None:
        if self.attributes or not isinstance(state, dict):
            raise ValueError(f"its {self.name} takes a state that no such file sets")
        made = _of_state(self.name, state)
        self.attributes, self.parts, self.tensors = made.attributes, made.parts, made.tensors


def _name(key: Any) -> str:
    return _checked(key, str, "a name")


def _checked(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what} is a {type(value).__name__}; the file is damaged, or a forgery")
    return value


def _storage(data: bytes) -> Storage:
    """What stands for `torch.storage._load_from_bytes`: a checkpoint within the pickle."""
    return Storage(_checked(read_legacy(io.BytesIO(data)), np.ndarray, "a storage"))


@dataclasses.dataclass(slots=True)
class _Dtype(Inert):
    """What stands for a `numpy.dtype`: of numbers only."""

    dtype: np.dtype

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


@dataclasses.dataclass(slots=True)
class _Array(Inert):
    """What stands for a `numpy.ndarray`, whose numbers come as its state."""

    numbers: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.numbers = _filled(shape, dtype, data, "F" if fortran else "C")


def _dtype(code: Any, *unused: Any) -> _Dtype:
    if not isinstance(code, str) or code.rstrip("0123456789") not in tuple(DTYPES):
        raise ValueError(f"one of its arrays is of {code!r}; expected numbers")
    return _Dtype(np.dtype(code))


def _filled(shape: tuple[int, ...], dtype: Any, data: Any, order: Any = "C") -> np.ndarray:
    data = _checked(data, bytes, "the content of an array")
    numbers = np.frombuffer(data, _checked(dtype, _Dtype, "the kind of an array").dtype)
    return numbers.reshape(shape, order=order).copy()


def _scalar(dtype: Any, data: Any) -> Any:
    return _filled((), dtype, data).item()


def _encode(text: str, encoding: str) -> bytes:
    """How old protocols write bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}; expected 'latin1'")
    return _checked(text, str, "a text").encode("latin1")


_ARRAY = Inert()  # stands for the class: `_reconstruct` is called with it

KNOWN: dict[tuple[str, str], Any] = {
    **{name: TORCH[name] for name in TORCH if name[0] in ("collections", "torch._utils")},
    ("torch", "Size"): Constructor(tuple),
    ("torch", "device"): Constructor(lambda *where: ":".join(map(str, where))),
    ("torch.storage", "_load_from_bytes"): Constructor(_storage),
    **{
        (f"{root}torch_utils.persistence", "_reconstruct_persistent_obj"): Constructor(_module)
        for root in ("", "src.")
    },
    **{
        (f"{root}{name}", "EasyDict"): dict
        for root in ("", "src.")
        for name in ("dnnlib", "dnnlib.util")
    },
    **{
        (module, name): Sealed(name, (_Unmarked,), {"__slots__": ()})
        for module, _, name in (path.rpartition(".") for path in UNMARKED)
    },
    **omegaconf.KNOWN,
    ("builtins", "set"): Constructor(set),
    ("__builtin__", "set"): Constructor(set),
    ("_codecs", "encode"): Constructor(_encode),
    ("numpy", "dtype"): Constructor(_dtype),
    ("numpy", "ndarray"): _ARRAY,
    **{
        (f"numpy.{core}.multiarray", name): Constructor(make)
        for core in ("core", "_core")
        for name, make in {
            "scalar": _scalar,
            "_reconstruct": lambda *unused: _Array(np.zeros(0)),
        }.items()
    },
}


class _Unpickler(Unpickler):
    def __init__(self, file: Any):
        super().__init__(
            file,
            KNOWN,
            "snapshots of stylegan2-ada-pytorch, stylegan3 and stylegan-v have none of it. Where"
            " other tools open this file, it runs",
        )

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("dnnlib.tflib"):
            raise ValueError(
                "it is of the TensorFlow releases (StyleGAN, StyleGAN2, stylegan2-ada), which"
                " ganjax does not read; convert it with legacy.py of NVlabs/stylegan3:"
                " python legacy.py --source=OLD.pkl --dest=NEW.pkl"
            )
        return super().find_class(module, name)
