"""Where parameters live: rules from a parameter's path to its place on the mesh.

A leaf of the train state is named by player, collection and path: ``g/params/linear/kernel``,
``d/spectral/conv_0/u``, ``ema/params/linear/kernel``, ``step``. An optimizer's moments go where
their parameter goes. Scalars are replicated and need no rule.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

Tactic = Callable[[tuple[int, ...], Mesh], P]


@dataclasses.dataclass(frozen=True)
class Rule:
    """``pattern`` is searched in a leaf's name; ``place`` is a spec, or picks one by shape.

    Attributes:
      late: of what `fsdp` splits: gathered by each block of the network for itself
        (`layers.blocks.recomputed`), not by the step for all of them.
    """

    pattern: str
    place: P | Tactic
    late: bool = False


def replicate(shape: tuple[int, ...], mesh: Mesh) -> P:
    """The tactic of small models: the whole parameter on every device."""
    del shape, mesh
    return P()


def fsdp(
    axis: str = "fsdp", min_size: int = 2**12
) -> Callable[[tuple[int, ...], Mesh | AbstractMesh], P]:
    """Split large parameters over ``axis``; gather each where it is used (ZeRO, stage 3).

    Args:
      axis: of the mesh.
      min_size: smaller tensors are replicated: gathering them costs more than keeping them.

    Returns:
      A tactic that splits the largest dimension that ``axis`` divides (the last of equals), and
      replicates where there is none.
    """

    def place(shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
        size = mesh.shape.get(axis, 1)
        fits = [i for i, length in enumerate(shape) if length % size == 0]
        if size == 1 or math.prod(shape) < min_size or not fits:
            return P()
        longest = max(fits, key=lambda i: (shape[i], i))
        return P(*(None,) * longest, axis)

    return place


def moved(tree: Any, places: Any, gradients: Any) -> Any:
    """Arrays, moved to their places; what comes back as their gradients is moved to others.

    Of arrays that were split and are gathered no device then has the whole of a gradient's sum.
    """
    return jax.tree.map(_moved, tree, places, gradients)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _moved(leaf: Any, place: Sharding, gradient: Sharding) -> Any:
    return jax.lax.with_sharding_constraint(leaf, place)


_moved.defvjp(
    lambda leaf, place, gradient: (_moved(leaf, place, gradient), None),
    lambda place, gradient, _, g: (jax.lax.with_sharding_constraint(g, gradient),),
)


@jax.custom_vjp
def _after(tree: Any, first: Any) -> Any:
    """Arrays that are only there once others are."""
    return jax.lax.optimization_barrier((tree, first))[0]


_after.defvjp(lambda tree, first: (_after(tree, first), None), lambda _, g: (g, None))


def gathered_late(tree: Any, first: Any, axis: str = "fsdp") -> Any:
    """Parameters that a rule gathers late, gathered: for a loss that sees the mesh.

    What :func:`fsdp` does by shape alone is undone; how other axes split them stays.

    Args:
      first: arrays without gradients that have to be there before.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.shape.get(axis, 1) == 1:
        return tree

    def gather(leaf: Any) -> Any:
        if axis not in (spec := fsdp(axis)(leaf.shape, mesh)):
            return leaf
        free = [P.UNCONSTRAINED] * leaf.ndim
        dimension = tuple(spec).index(axis)
        places = (
            NamedSharding(mesh, P(*free[:dimension], there, *free[dimension + 1 :]))
            for there in (None, axis)
        )
        return _moved(leaf, *places)

    return jax.tree.map(gather, _after(tree, first))


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
    return _placed(tree, rules, mesh, lambda spec, rule: spec)


def gathered(tree: Any, rules: Sequence[Rule], mesh: Mesh, axis: str = "fsdp") -> Any:
    """As `shardings`, without ``axis`` but for what is gathered late: where a loss meets a state.

    Left to itself the partitioner takes the way a parameter is kept for the way to compute, and
    splits channels of activations.
    """

    def gather(spec: P, rule: Rule) -> P:
        return spec if rule.late else P(*(None if axes == axis else axes for axes in spec))

    return _placed(tree, rules, mesh, gather)


def _placed(tree: Any, rules: Sequence[Rule], mesh: Mesh, change: Callable[[P, Rule], P]) -> Any:
    rules = tuple(rules) or REPLICATE
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = [(_path(path), tuple(leaf.shape)) for path, leaf in leaves]
    shapes = dict(named)
    placed = []
    for path, shape in named:
        name = name_of(_parameter_of(path, shape, shapes))
        spec, rule = _place(name, shape, rules, mesh)
        placed.append(NamedSharding(mesh, change(spec, rule)))
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


def _place(name: str, shape: tuple[int, ...], rules: Sequence[Rule], mesh: Mesh) -> tuple[P, Rule]:
    if not shape:
        return P(), REPLICATE[0]
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
    return spec, rule
