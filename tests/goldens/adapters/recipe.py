"""Feature networks: weights too large to ship, drawn as a case's JSON says; parts of layers."""

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np


def weights(meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict that a case's "recipe", "recipe_seed" and "shapes" describe, float32.

    Entries are drawn in float64 in the order of their sorted names: variances and 1-D weights
    uniform in [0.5, 1.5], means and biases 0.1 N(0, 1), others N(0, 2 / fan_in) with fan_in the
    product of all axes but the first. A sentence "<name> is multiplied by <factor> afterwards" in
    the recipe is obeyed, and the "checksums" must come out.
    """
    rng = np.random.Generator(np.random.PCG64(meta["recipe_seed"]))
    factors = dict(re.findall(r"(\S+) is multiplied by ([\d.eE+-]+)", meta["recipe"]))
    state: dict[str, np.ndarray] = {}
    for name, shape in sorted(meta["shapes"].items()):
        if name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape, np.int64)
            continue
        scaled_normal = 0.1
        if len(shape) >= 2:
            scaled_normal = math.sqrt(2 / math.prod(shape[1:]))
        between = name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight"))
        if between and not name.endswith("running_mean"):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.standard_normal(shape) * scaled_normal
        array = np.asarray(array, np.float32)
        if name in factors:
            array = (array.astype(np.float64) * float(factors[name])).astype(np.float32)
        state[name] = array
    _check(state, meta.get("checksums", {}))
    return state


def _check(state: Mapping[str, np.ndarray], checksums: Mapping[str, Any]) -> None:
    for name, golden in checksums.items():
        found = state[name]
        first = found.reshape(-1)[: len(golden["first"])]
        total = found.astype(np.float64).sum()
        if not np.array_equal(first, np.float32(golden["first"])) or not math.isclose(
            total, golden["sum"], rel_tol=1e-6, abs_tol=1e-6
        ):
            raise ValueError(f"{name} is not what the recipe gives: {first}, sum {total}")


def endpoint(intermediates: Mapping[str, Any], name: str) -> Any:
    """Output of a layer by its path ("Mixed_6d.branch1x1"), among captured intermediates."""
    node = intermediates
    for part in name.split("."):
        node = node[part]
    (value,) = node["__call__"] if isinstance(node, Mapping) else node
    return value


def moments(value: Any) -> np.ndarray:
    """[n, 2, c]: mean and population standard deviation over space and time."""
    value = np.asarray(value, np.float64)  # float32 sums over this many values would not do
    axes = tuple(range(1, value.ndim - 1))
    return np.stack([value.mean(axes), value.std(axes)], axis=1)


def volume(formula: str) -> np.ndarray:
    """The array of a formula: "mean[c,t,h,w] = (1,2,3)[c] + 4*cos(0.05*h), (3,16,8,9) float32".

    Sums and products of numbers, indices, cosines and sines are known, anything else is refused.
    """
    match = re.fullmatch(r"mean\[c,t,h,w\] = (.*), \(([\d, ]+)\) float32.*", formula, re.DOTALL)
    if match is None:
        raise ValueError(f"cannot read the formula {formula!r}")
    shape = tuple(int(size) for size in match[2].split(","))
    indices = dict(zip("cthw", np.ogrid[tuple(slice(size) for size in shape)]))

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=number):
                return number
            case ast.Name(id=name):
                return indices[name]
            case ast.Tuple(elts=parts):
                return np.array([value(part) for part in parts])
            case ast.Subscript(value=table, slice=index):
                return value(table)[value(index)]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case ast.Call(func=ast.Name(id="cos" | "sin" as name), args=[argument]):
                return getattr(np, name)(value(argument))
        raise ValueError(f"{ast.dump(node)} is not known in formulas")

    filled = value(ast.parse(match[1], mode="eval").body)
    return np.broadcast_to(filled, shape).astype(np.float32)
