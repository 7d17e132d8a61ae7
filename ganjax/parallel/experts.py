"""How tokens meet their experts: one meaning, four executions.

Every execution computes ``y[i] = scale[i] * ffn(weights of expert[i], x[i])``, called alike::

    y, dropped = execution(ffn, weights, x, expert, scale)

with ``x`` Float[n, t, d], ``expert`` Int[n, t], ``scale`` Float[n, t] and ``weights`` a tree of
stacks Float[e, ...]. ``ffn(run, weights, x)`` computes row by row, and reaches the weights through
``run(x, inward, join, outward)`` alone, a network of one hidden layer, which pointwise ``join``
makes of the products of all layers ``inward``: an execution decides how that is computed.
``dropped`` is the number of tokens that found no place; their y is 0, so that in a residual block
they pass unchanged.

    EveryExpert     all experts on all tokens, then a choice: what the others are tested against
    Capacity        each device sorts its tokens into buffers of a fixed size, one for each expert
    ExpertParallel  the same, and buffers travel to the devices that hold their experts
    Dropless        each device sorts its tokens, none is dropped: rows padded to whole blocks

Inside ``jax.sharding.use_abstract_mesh`` (a train step is traced there) each device works on its
own tokens; elsewhere all tokens are one group.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from ganjax.parallel.grouped import Join, Layer, Order, grouped_network

AXIS = "expert"  # of the mesh: where ExpertParallel's experts lie
BLOCK = 512  # rows of a buffer that are multiplied at once, at most

Run = Callable[[Array, tuple[Layer, ...], Join, Layer], Array]
Ffn = Callable[[Run, Any, Array], Array]


# (ffn, weights, x, expert, scale) -> (y, dropped): see the module.
Execution = Callable[..., tuple[Array, Array]]


class Slots(NamedTuple):
    """Where tokens lie among the rows of all experts.

    Attributes:
      token: Int[rows], the token of each row; of an empty row any.
      row: Int[tokens], the row of each token; an empty row for a token that found no place.
      filled: Bool[rows].
      placed: Bool[tokens].
    """

    token: Int[Array, "rows"]
    row: Int[Array, "tokens"]
    filled: Bool[Array, "rows"]
    placed: Bool[Array, "tokens"]


def slots(
    expert: Int[Array, "t"], starts: Int[Array, "e"], sizes: Int[Array, "e"], rows: int
) -> Slots:
    """Tokens in their order into rows ``starts[e]`` to ``starts[e] + sizes[e]`` of their expert.

    Args:
      rows: as many as tokens, at least, so that one is empty if a token finds no place.
    """
    tokens = len(expert)
    counts = counted(expert, len(starts))
    first = jnp.cumsum(counts) - counts
    # A stable sort by expert, of one operand.
    order = lax.sort(expert * tokens + jnp.arange(tokens)) % tokens
    at = jnp.arange(rows)
    owner = jnp.sum(at[:, None] >= starts[None, 1:], axis=1)
    offset = at - starts[owner]
    filled = offset < jnp.minimum(counts, sizes)[owner]
    token = order[jnp.clip(first[owner] + offset, 0, tokens - 1)]
    rank = _inverse(order) - first[expert]
    placed = rank < sizes[expert]
    row = jnp.where(placed, starts[expert] + rank, jnp.argmin(filled))
    return Slots(token, row, filled, placed)


def counted(expert: Int[Array, "t"], experts: int) -> Int[Array, "e"]:
    """Tokens of each expert."""
    return jnp.sum(expert[:, None] == jnp.arange(experts), axis=0)


def _inverse(order: Int[Array, "t"]) -> Int[Array, "t"]:
    return lax.sort((order, jnp.arange(len(order))), num_keys=1)[1]


@jax.custom_vjp
def moved(x: Float[Array, "a ..."], source: Int[Array, "b"], target: Int[Array, "a"]) -> Array:
    """``x[source]``; its gradient is ``g[target]``, a gather, too, where a scatter would add.

    That is the gradient if `source` and `target` are each other's inverses where it matters: where
    they are not, `through` multiplies by 0.
    """
    del target
    return _at(x, source)


def _at(x: Array, index: Array) -> Array:
    return x.at[index].get(mode="promise_in_bounds")


moved.defvjp(
    lambda x, source, target: (moved(x, source, target), target),
    lambda target, g: (_at(g, target), None, None),
)


def through(
    experts: Callable[[Float[Array, "rows d"]], Float[Array, "rows d2"]],
    places: Slots,
    x: Float[Array, "tokens d"],
    scale: Float[Array, "tokens"],
) -> Float[Array, "tokens d2"]:
    """Tokens to their rows, rows through the experts, and back, times their scale.

    An empty row computes some token's and is multiplied by 0; a token without a place reads it.
    """
    y = experts(moved(x, places.token, places.row))
    scale = moved(jnp.where(places.placed, scale, 0), places.token, places.row)
    y = y * jnp.where(places.filled, scale, 0)[:, None].astype(y.dtype)
    return moved(y, places.row, places.token)


def plain_network(
    x: Float[Array, "... c i"], inward: tuple[Layer, ...], join: Join, outward: Layer
) -> Float[Array, "... c o"]:
    """One network for all rows, or one for each row of rows; sums in float32 at least."""

    def through(x: Array, layer: Layer) -> Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        y = jnp.matmul(x, layer.kernel.astype(x.dtype), preferred_element_type=wide)
        return (y + layer.bias[..., None, :]).astype(x.dtype)

    return through(join(*(through(x, layer) for layer in inward)), outward)


def buffers_network(
    owner: tuple[int, ...],
    x: Float[Array, "b c i"],
    inward: tuple[Layer, ...],
    join: Join,
    outward: Layer,
) -> Float[Array, "b c o"]:
    """Rows of each buffer by its owner's network, of which each has as many."""
    alone = len(set(owner)) == len(owner) and x.shape[1] <= 2 * BLOCK
    parts = 1 if alone else -(-x.shape[1] // BLOCK)
    blocks = x.reshape(len(owner) * parts, -1, x.shape[-1])
    order = Order(alike=tuple(one for one in owner for _ in range(parts)))
    return grouped_network(join, blocks, inward, outward, order).reshape(*x.shape[:2], -1)


@dataclasses.dataclass(frozen=True)
class EveryExpert:
    """A loop over experts, each on all tokens."""

    def __call__(
        self,
        ffn: Ffn,
        weights: Any,
        x: Float[Array, "n t d"],
        expert: Int[Array, "n t"],
        scale: Float[Array, "n t"],
    ) -> tuple[Float[Array, "n t d2"], Int[Array, ""]]:
        def one(index: int) -> Array:
            own = jax.tree.map(lambda leaf: leaf[index : index + 1], weights)
            y = ffn(plain_network, own, x.reshape(1, -1, x.shape[-1])).reshape(*x.shape[:2], -1)
            return y * jnp.where(expert == index, scale, 0)[..., None].astype(y.dtype)

        y = functools.reduce(jnp.add, map(one, range(_experts(weights))))
        return y, jnp.zeros((), jnp.int32)


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Buffers for ``factor`` times an expert's even share of a device's tokens.

    Attributes:
      factor: 1.25 is usual; the number of experts suffices for any routing.
    """

    factor: int | float = 1.25

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"A capacity factor of {self.factor}; set 1 or more, 1.25 is usual.")

    def __call__(
        self,
        ffn: Ffn,
        weights: Any,
        x: Float[Array, "n t d"],
        expert: Int[Array, "n t"],
        scale: Float[Array, "n t"],
    ) -> tuple[Float[Array, "n t d2"], Int[Array, ""]]:
        own = tuple(range(_experts(weights)))
        run = functools.partial(_in_buffers, ffn, self.factor, own, lambda buffers: buffers)
        return _on_own_tokens(run, P(), weights, x, expert, scale)


@dataclasses.dataclass(frozen=True)
class ExpertParallel:
    """As `Capacity`, the experts being split over axis "expert" of the mesh.

    Attributes:
      factor: of capacity, see `Capacity`.
    """

    factor: int | float = 1.25

    def __post_init__(self) -> None:
        Capacity(self.factor)

    def __call__(
        self,
        ffn: Ffn,
        weights: Any,
        x: Float[Array, "n t d"],
        expert: Int[Array, "n t"],
        scale: Float[Array, "n t"],
    ) -> tuple[Float[Array, "n t d2"], Int[Array, ""]]:
        parts = jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)
        if parts == 1:
            return Capacity(self.factor)(ffn, weights, x, expert, scale)
        experts = _experts(weights)
        if experts % parts:
            raise ValueError(
                f"{experts} experts do not divide over the {parts} devices of axis {AXIS!r}; set "
                "config.mesh.expert to a divisor of the number of experts."
            )

        def exchange(buffers: Float[Array, "e c d"]) -> Array:
            # Those of each device's experts to it, where they lie by the device they come from.
            return lax.all_to_all(buffers, AXIS, split_axis=0, concat_axis=0, tiled=True)

        own = tuple(range(experts // parts)) * parts
        run = functools.partial(_in_buffers, ffn, self.factor, own, exchange)
        return _on_own_tokens(run, P(AXIS), weights, x, expert, scale)


@dataclasses.dataclass(frozen=True)
class Dropless:
    """Rows sorted by expert, those of an expert padded to whole blocks.

    Attributes:
      block: rows of a block, 128 at least on a TPU. An expert wastes half of one on average.
    """

    block: int = 128

    def __call__(
        self,
        ffn: Ffn,
        weights: Any,
        x: Float[Array, "n t d"],
        expert: Int[Array, "n t"],
        scale: Float[Array, "n t"],
    ) -> tuple[Float[Array, "n t d2"], Int[Array, ""]]:
        return _on_own_tokens(functools.partial(self._sorted, ffn), P(), weights, x, expert, scale)

    def _sorted(
        self,
        ffn: Ffn,
        weights: Any,
        x: Float[Array, "t d"],
        expert: Int[Array, "t"],
        scale: Float[Array, "t"],
    ) -> tuple[Array, Array]:
        tokens, experts, block = len(x), _experts(weights), min(self.block, len(x))
        # Every expert has a block, and one of its blocks may not be full.
        blocks = tokens // block + experts
        sizes = jnp.maximum(-(-counted(expert, experts) // block), 1) * block
        starts = jnp.cumsum(sizes) - sizes
        places = slots(expert, starts, sizes, blocks * block)
        owner = jnp.sum(jnp.arange(blocks)[:, None] * block >= starts[None, 1:], axis=1)

        def run(x: Array, inward: tuple[Layer, ...], join: Join, outward: Layer) -> Array:
            rows = x.reshape(blocks, block, -1)
            y = grouped_network(join, rows, inward, outward, Order(owner))
            return y.reshape(blocks * block, -1)

        y = through(functools.partial(ffn, run, weights), places, x, scale)
        return y, jnp.zeros((), jnp.int32)


def _experts(weights: Any) -> int:
    return len(jax.tree.leaves(weights)[0])


def _in_buffers(
    ffn: Ffn,
    factor: int | float,
    owner: tuple[int, ...],
    exchange: Callable[[Array], Array],
    weights: Any,
    x: Float[Array, "t d"],
    expert: Int[Array, "t"],
    scale: Float[Array, "t"],
) -> tuple[Array, Array]:
    """Tokens into buffers of equal size, which are exchanged for those of `owner`, and back."""
    experts = len(owner)
    size = math.ceil(factor * len(x) / experts)
    step = 8 * -(-size // BLOCK)  # whole blocks of as many rows
    size = -(-size // step) * step
    starts, sizes = jnp.arange(experts) * size, jnp.full(experts, size)
    places = slots(expert, starts, sizes, experts * size)

    def run(rows: Array) -> Array:
        there = exchange(rows.reshape(experts, size, -1))
        y = ffn(functools.partial(buffers_network, owner), weights, there)
        return exchange(y).reshape(experts * size, -1)

    return through(run, places, x, scale), jnp.sum(~places.placed, dtype=jnp.int32)


def _on_own_tokens(
    run: Callable[..., tuple[Array, Array]],
    place: P,
    weights: Any,
    x: Float[Array, "n t d"],
    expert: Int[Array, "n t"],
    scale: Float[Array, "n t"],
) -> tuple[Array, Array]:
    """``run(weights, x [t, d], expert [t], scale [t])`` on each device's samples.

    The weights lie at ``place``.
    """

    def local(weights: Any, x: Array, expert: Array, scale: Array) -> tuple[Array, Array]:
        # This device's own, so that gradients are summed once, in the weights' dtype.
        shared = tuple(set(jax.sharding.get_abstract_mesh().manual_axes) - set(place))
        weights = jax.tree.map(lambda leaf: lax.pcast(leaf, shared, to="varying"), weights)
        y, dropped = run(weights, x.reshape(-1, x.shape[-1]), expert.reshape(-1), scale.reshape(-1))
        return y.reshape(*x.shape[:2], -1), dropped[None]

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        y, dropped = local(weights, x, expert, scale)
    else:
        if len(x) % mesh.size:
            raise ValueError(
                f"A batch of {len(x)} does not divide over the {mesh.size} devices of the mesh; "
                f"set config.train.batch to a multiple of {mesh.size}."
            )
        samples = P(tuple(mesh.axis_names))
        y, dropped = jax.shard_map(
            local, in_specs=(place, samples, samples, samples), out_specs=(samples, samples)
        )(weights, x, expert, scale)
    return y, jnp.sum(dropped)
