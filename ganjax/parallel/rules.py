"""Where parameters live: rules from a parameter's path to its place on the mesh.

A leaf of the train state is named by player, collection and path: ``g/params/linear/kernel``,
``d/spectral/conv_0/u``, ``ema/params/linear/kernel``, ``step``. An optimizer's moments go where
their parameter goes. Scalars are replicated and need no rule.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

Tactic = Callable[[tuple[int, ...], Mesh], P]


@dataclasses.dataclass(frozen=True)
class Rule:
    """``pattern`` is searched in a leaf's name; ``place`` is a spec, or picks one by shape."""

    pattern: str
    place: P | Tactic


def replicate(shape: tuple[int, ...], mesh: Mesh) -> P:
    """The tactic of small models: the whole parameter on every device."""
    del shape, mesh
    return P()


def fsdp(axis: str = "fsdp", min_size: int = 2**12) -> Tactic:
    """Split large parameters over ``axis``; gather each where it is used (ZeRO, stage 3).

    Args:
      axis: of the mesh.
      min_size: smaller tensors are replicated: gathering them costs more than keeping them.

    Returns:
      A tactic that splits the largest dimension that ``axis`` divides (the last of equals), and
      replicates where there is none.
    """

    def place(shape: tuple[int, ...], mesh: Mesh) -> P:
        size = mesh.shape.get(axis, 1)
        fits = [i for i, length in enumerate(shape) if length % size == 0]
        if size == 1 or math.prod(shape) < min_size or not fits:
            return P()
        longest = max(fits, key=lambda i: (shape[i], i))
        return P(*(None,) * longest, axis)

    return place


def gathered(places: Any, axis: str = "fsdp") -> Any:
    """Those places without ``axis``: where parameters that :func:`fsdp` keeps apart are used.

    Left to itself the partitioner takes the way a parameter is kept for the way to compute, and
    splits channels of activations.
    """

    def gather(place: Sharding) -> Sharding:
        if not isinstance(place, NamedSharding):  # one device
            return place
        return NamedSharding(
            place.mesh, P(*(None if axes == axis else axes for axes in place.spec))
        )

    return jax.tree.map(gather, places)


def whole(tree: Any) -> Any:
    """Arrays of a mesh, moved to where each device has all of them, over whichever axes they lie.

    What samples and measures sees whole variables: parameters that are split over "fsdp", and
    experts over "expert", are gathered. Each device has to hold them beside the state.
    """

    def place(leaf: Any) -> Sharding:
        at = leaf.sharding
        return NamedSharding(at.mesh, P()) if isinstance(at, NamedSharding) else at

    return jax.device_put(tree, jax.tree.map(place, tree))


REPLICATE = (Rule("", replicate),)


def shardings(tree: Any, rules: Sequence[Rule], mesh: Mesh) -> Any:
    """A NamedSharding for each leaf of a state (arrays or their shapes), by the first rule that
    matches its name; no rules at all replicate everything.

    Raises:
      ValueError: a parameter that no rule matches, or that its place does not fit; the message
        names parameter, shape and axis.
    """
    rules = tuple(rules) or REPLICATE
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = [(_path(path), tuple(leaf.shape)) for path, leaf in leaves]
    shapes = dict(named)
    placed = []
    for path, shape in named:
        name = name_of(_parameter_of(path, shape, shapes))
        placed.append(NamedSharding(mesh, _place(name, shape, rules, mesh)))
    return jax.tree_util.tree_unflatten(structure, placed)


def name_of(path: str) -> str:
    """``g/params/linear/kernel`` from ``players/g/params/linear/kernel``."""
    match = re.fullmatch(r"players/([^/]+)/(?:collections/)?(.*)", path)
    return f"{match[1]}/{match[2]}" if match else path


def _path(path: Sequence[Any]) -> str:
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def _parameter_of(path: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]) -> str:
    """The path of the parameter that an optimizer's leaf belongs to, else the path itself.

    Whatever Optax nests them in, moments end in their parameter's path and have its shape.
    """
    match = re.fullmatch(r"(.*?)\boptimizer/(.*)", path)
    if not match:
        return path
    rest = match[2]
    while rest:
        parameter = f"{match[1]}params/{rest}"
        if shapes.get(parameter) == shape:
            return parameter
        rest = rest.partition("/")[2]
    return path


def _place(name: str, shape: tuple[int, ...], rules: Sequence[Rule], mesh: Mesh) -> P:
    if not shape:
        return P()
    rule = next((rule for rule in rules if re.search(rule.pattern, name)), None)
    if rule is None:
        patterns = ", ".join(repr(rule.pattern) for rule in rules)
        raise ValueError(
            f"No sharding rule matches parameter {name!r} of shape {shape}; the patterns are "
            f"{patterns}. Add a rule for it, or end the rules with Rule('', replicate)."
        )
    spec = rule.place if isinstance(rule.place, P) else rule.place(shape, mesh)
    if len(spec) > len(shape):
        raise ValueError(
            f"Rule {rule.pattern!r} places parameter {name!r} of shape {shape} by {spec}, which "
            f"has {len(spec)} dimensions. Give at most {len(shape)}."
        )
    for dimension, axes in enumerate(spec):
        axes = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
        for axis in axes:
            if axis not in mesh.shape:
                raise ValueError(
                    f"Rule {rule.pattern!r} splits parameter {name!r} of shape {shape} over axis "
                    f"{axis!r}; the mesh has {dict(mesh.shape)}. Set config.mesh.{axis}."
                )
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if shape[dimension] % parts:
            raise ValueError(
                f"Rule {rule.pattern!r} splits dimension {dimension} of parameter {name!r} of "
                f"shape {shape} over {'*'.join(axes)} = {parts} devices, which does not divide "
                f"{shape[dimension]}. Change config.mesh.{axes[0]} or the rule."
            )
    return spec
