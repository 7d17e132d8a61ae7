"""A network of one hidden layer whose kernels differ from block to block of rows.

``lax.ragged_dot`` would do but for its gradient by the kernels, which XLA makes dense: as many
products as there are experts. On a TPU Pallas kernels do it, which read each float32 kernel once,
narrow it on the way, and end in all that is pointwise: what joins the hidden layer, and its
gradient, never travel by themselves. Elsewhere blocks are looped over, or, where all experts have
as many, are one batched product (docs/tpu.md).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

LANES = 128  # of a TPU: tiles are multiples of these
VMEM = 2**26  # bytes that a kernel may use

Join = Callable[..., Array]  # pointwise: one array of all products of the hidden layer


class Layer(NamedTuple):
    """A linear layer of each expert."""

    kernel: Float[Array, "e i o"]
    bias: Float[Array, "e o"]


class Order(NamedTuple):
    """Which expert's each block is.

    Attributes:
      owner: Int[b], the expert of each block, if only known at run time: ascending, each expert at
        least once.
      alike: the same, if known before and each expert has as many, in any order.
    """

    owner: Int[Array, "b"] | None = None
    alike: tuple[int, ...] = ()

    @property
    def once(self) -> bool:
        """Whether each expert has one block."""
        return bool(self.alike) and len(set(self.alike)) == len(self.alike)

    def sorted(self) -> tuple[Array, Array]:
        """Places of blocks in the order of their experts, and these experts."""
        if self.owner is not None:
            return jnp.arange(len(self.owner), dtype=jnp.int32), self.owner
        places = np.argsort(self.alike, kind="stable").astype(np.int32)
        axes = jax.sharding.get_abstract_mesh().manual_axes
        found = jnp.asarray(places), jnp.asarray(np.sort(self.alike).astype(np.int32))
        return lax.pcast(found, axes, to="varying")


def grouped_network(
    join: Join,
    x: Float[Array, "b rows i"],
    inward: tuple[Layer, ...],
    outward: Layer,
    order: Order,
) -> Float[Array, "b rows o"]:
    """Of each block ``outward(join(*(layer(x[k]) for layer in inward)))`` by its expert.

    In the dtype of `x`; sums are in float32 at least, and gradients of kernels and biases stay so.
    """
    return _network(join, order.alike, x, inward, outward, order.owner)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _network(
    join: Join, alike: tuple[int, ...], x: Array, inward: Any, outward: Layer, owner: Any
) -> Array:
    return _choose("forward", join, alike, x, inward, outward, owner)


def _forward(join: Join, alike: Any, x: Array, inward: Any, outward: Layer, owner: Any) -> Any:
    y, products, hidden = _choose("kept", join, alike, x, inward, outward, owner)
    return y, (x, inward, outward, owner, products, hidden)


def _backward(join: Join, alike: Any, kept: Any, g: Array) -> Any:
    x, inward, outward, *rest = kept
    back, *layers = _choose("backward", join, alike, x, inward, outward, *rest, g)
    like = [Layer(*(leaf.dtype for leaf in layer)) for layer in (*inward, outward)]
    *inner, outer = jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), layers, like)
    return back, tuple(inner), outer, None


_network.defvjp(_forward, _backward)


def _choose(
    what: str, join: Join, alike: Any, x: Array, inward: Any, outward: Layer, owner: Any, *kept: Any
) -> Any:
    """One of two formulations, by the platform, and by whether the TPU's tiles fit."""
    widths = (*x.shape[2:], *outward.kernel.shape[1:])

    def run(table: Any, x: Array, inward: Any, outward: Layer, owner: Any, *kept: Any) -> Any:
        return table[what](join, x, inward, outward, Order(owner, alike), *kept)

    elsewhere = functools.partial(run, LOOPS)
    if x.dtype == jnp.float64 or any(width % LANES for width in widths) or x.shape[1] % 8:
        return elsewhere(x, inward, outward, owner, *kept)
    on_tpu = functools.partial(run, KERNELS)
    return lax.platform_dependent(x, inward, outward, owner, *kept, tpu=on_tpu, default=elsewhere)


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _dot(a: Array, b: Array, contract: int = 0) -> Array:
    """``a @ b``, or ``a @ b.T`` if dimension 1 of `b` is contracted; sums in float32 at least."""
    kind = _wide(a.dtype)
    return lax.dot_general(a, b, (((1,), (contract,)), ((), ())), preferred_element_type=kind)


# Loops, and batched products where experts have as many blocks.


def _together(x: Array, order: Order) -> Array:
    """Rows of each expert, of as many blocks each, beside each other."""
    places, experts = np.argsort(order.alike, kind="stable"), len(set(order.alike))
    return x[places].reshape(experts, -1, x.shape[-1])


def _apart(rows: Array, order: Order) -> Array:
    """Undoes `_together`."""
    places = np.argsort(np.argsort(order.alike, kind="stable"))
    return rows.reshape(len(places), -1, rows.shape[-1])[places]


def _product(
    x: Float[Array, "b rows a"],
    kernel: Float[Array, "e i o"],
    order: Order,
    transposed: bool = False,
) -> Array:
    """Sums are not narrowed."""
    contract = 1 if transposed else 0
    if order.alike:
        y = lax.dot_general(
            _together(x, order),
            kernel.astype(x.dtype),
            (((2,), (1 + contract,)), ((0,), (0,))),
            preferred_element_type=_wide(x.dtype),
        )
        return _apart(y, order)

    def one(given: tuple[Array, Array]) -> Array:
        return _dot(given[0], kernel[given[1]].astype(x.dtype), contract)

    return lax.map(one, (x, order.owner))


def _gradient(
    x: Float[Array, "b rows i"], g: Float[Array, "b rows o"], order: Order, experts: int
) -> Layer:
    """Of a layer: the sums of ``x[k].T @ g[k]`` and of rows of g over each expert's blocks."""
    if order.alike:
        a, b = (_together(leaf, order) for leaf in (x, g))
        numbers: Any = (((1,), (1,)), ((0,), (0,)))
        kernel = lax.dot_general(a, b, numbers, preferred_element_type=_wide(x.dtype))
        return Layer(kernel, jnp.sum(b.astype(kernel.dtype), axis=1))

    def add(total: Layer, given: Any) -> tuple[Layer, None]:
        a, b, index = given
        kernel = total.kernel.at[index].add(_dot(a.T, b))
        return Layer(kernel, total.bias.at[index].add(jnp.sum(b.astype(kernel.dtype), 0))), None

    # Inside of shard_map a loop's state is of one kind from the start: each device has its own.
    axes = jax.sharding.get_abstract_mesh().manual_axes
    sizes = (experts, x.shape[2], g.shape[2]), (experts, g.shape[2])
    zeros = Layer(*(jnp.zeros(size, _wide(x.dtype)) for size in sizes))
    return lax.scan(add, lax.pcast(zeros, axes, to="varying"), (x, g, order.owner))[0]


def _kept(join: Join, x: Array, inward: Any, outward: Layer, order: Order) -> Any:
    """y, the products of the hidden layer, and the layer."""
    owner = np.array(order.alike) if order.alike else order.owner

    def through(x: Array, layer: Layer) -> Array:
        return (_product(x, layer.kernel, order) + layer.bias[owner][:, None]).astype(x.dtype)

    products = tuple(through(x, layer) for layer in inward)
    hidden = join(*products)
    return through(hidden, outward), products, hidden


def _back(
    join: Join,
    x: Array,
    inward: Any,
    outward: Layer,
    order: Order,
    products: tuple[Array, ...],
    hidden: Array,
    g: Array,
) -> Any:
    """Gradients by x and by all layers."""
    experts = len(outward.kernel)
    by_hidden = _product(g, outward.kernel, order, transposed=True).astype(x.dtype)
    parts = jax.vjp(join, *products)[1](by_hidden)
    back = [_product(a, b.kernel, order, transposed=True) for a, b in zip(parts, inward)]
    layers = [_gradient(x, part, order, experts) for part in parts]
    return (
        functools.reduce(jnp.add, back).astype(x.dtype),
        *layers,
        _gradient(hidden, g, order, experts),
    )


# Pallas kernels: all blocks for a tile, or all tiles for a block where each expert has one. Blocks
# of an expert follow each other, so that a tile of its kernel is read once.

# Of a block of an array: its shape, and where it is by the tile, the block's place and the expert.
Spec = tuple[tuple[int | None, ...], Callable[[Any, Any, Any], Any]]


def _tpu_layers(
    x: Float[Array, "b rows i"],
    layers: tuple[Layer, ...],
    order: Order,
    join: Join | None = None,
    keep: bool = True,
    interpret: bool = False,
) -> list[Array]:
    """What each layer makes of the rows, if that is to be kept, and what joins these, if any."""
    blocks, rows, inner = x.shape
    width, count = layers[0].kernel.shape[2], len(layers)
    made = keep * count + (join is not None)

    def body(places: Any, owner: Any, x: Any, *refs: Any) -> None:
        del places, owner  # they have chosen the blocks
        kernels, biases, results = refs[:count], refs[count : 2 * count], refs[2 * count :]
        products = [
            _dot(x[...], kernel[...].astype(x.dtype)) + bias[...]
            for kernel, bias in zip(kernels, biases)
        ]
        # Joined as they are kept: that is the function whose gradient is taken.
        joined = [join(*(_rounded(product, x.dtype) for product in products))] if join else []
        for result, value in zip(results, [*(products if keep else ()), *joined]):
            result[...] = value.astype(result.dtype)

    tile = _tile(width, inner, rows, inwards=1, kernels=count, across=made, size=x.itemsize)
    of_kernel: Spec = (None, inner, tile), lambda t, b, e: (e, 0, t)
    of_bias: Spec = (None, 1, tile), lambda t, b, e: (e, 0, t)
    return _call(
        body,
        width // tile,
        [_whole(x)] + [of_kernel] * count + [of_bias] * count,
        [((None, rows, tile), lambda t, b, e: (b, 0, t))] * made,
        [jax.ShapeDtypeStruct((blocks, rows, width), x.dtype)] * made,
        2 * count * blocks * rows * inner * width,
        order,
        interpret,
    )(x, *(layer.kernel for layer in layers), *(layer.bias[:, None] for layer in layers))


def _tpu_parts(
    join: Join,
    g: Float[Array, "b rows o"],
    kernel: Float[Array, "e h o"],
    products: tuple[Float[Array, "b rows h"], ...],
    order: Order,
    interpret: bool = False,
) -> list[Array]:
    """Gradients by each of the hidden layer's products."""
    blocks, rows, inner = g.shape
    width, count = kernel.shape[1], len(products)

    def body(places: Any, owner: Any, g: Any, kernel: Any, *refs: Any) -> None:
        del places, owner
        by_hidden = _dot(g[...], kernel[...].astype(g.dtype), 1)
        wide = [product[...].astype(by_hidden.dtype) for product in refs[:count]]
        for part, result in zip(jax.vjp(join, *wide)[1](by_hidden), refs[count:]):
            result[...] = part.astype(result.dtype)

    tile = _tile(width, inner, rows, inwards=1, kernels=1, across=2 * count, size=g.itemsize)
    of_rows: Spec = (None, rows, tile), lambda t, b, e: (b, 0, t)
    of_kernel: Spec = (None, tile, inner), lambda t, b, e: (e, t, 0)
    return _call(
        body,
        width // tile,
        [_whole(g), of_kernel] + [of_rows] * count,
        [of_rows] * count,
        [jax.ShapeDtypeStruct((blocks, rows, width), g.dtype)] * count,
        2 * blocks * rows * inner * width,
        order,
        interpret,
    )(g, kernel, *products)


def _tpu_sum(
    parts: list[Array], kernels: list[Array], order: Order, interpret: bool = False
) -> Float[Array, "b rows i"]:
    """The sum of each part's blocks times their expert's ``kernel.T``."""
    blocks, rows, inner = parts[0].shape
    width, count, kind = kernels[0].shape[1], len(parts), parts[0].dtype

    def body(places: Any, owner: Any, *refs: Any) -> None:
        del places, owner
        pairs = zip(refs[:count], refs[count:-1])
        sums = [_dot(part[...], kernel[...].astype(kind), 1) for part, kernel in pairs]
        refs[-1][...] = functools.reduce(jnp.add, sums).astype(kind)

    tile = _tile(width, inner, rows, inwards=count, kernels=count, across=1, size=kind.itemsize)
    of_kernel: Spec = (None, tile, inner), lambda t, b, e: (e, t, 0)
    return _call(
        body,
        width // tile,
        [_whole(part) for part in parts] + [of_kernel] * count,
        [((None, rows, tile), lambda t, b, e: (b, 0, t))],
        [jax.ShapeDtypeStruct((blocks, rows, width), kind)],
        2 * count * blocks * rows * inner * width,
        order,
        interpret,
    )(*parts, *kernels)[0]


def _tpu_gradient(
    x: Float[Array, "b rows i"],
    g: Float[Array, "b rows o"],
    order: Order,
    experts: int,
    interpret: bool = False,
) -> Layer:
    """As `_gradient`."""
    from jax.experimental import pallas as pl

    blocks, rows, inputs = x.shape
    outputs, size = g.shape[2], x.itemsize
    across = _tile(outputs, LANES, rows, inwards=1, kernels=1, across=1, size=size)
    down = _tile(inputs, across, rows, inwards=1, kernels=1, across=1, size=size)
    n = outputs // across

    def body(places: Any, owner: Any, x: Any, g: Any, kernel: Any, bias: Any) -> None:
        del places
        block = pl.program_id(0 if order.once else 1)

        @pl.when((block == 0) | (owner[block] != owner[jnp.maximum(block - 1, 0)]))
        def _() -> None:
            kernel[...] = jnp.zeros_like(kernel)
            bias[...] = jnp.zeros_like(bias)

        kernel[...] += _dot(x[...].T, g[...])
        bias[...] += jnp.sum(g[...].astype(bias.dtype), axis=0, keepdims=True)

    kernel, bias = _call(
        body,
        inputs // down * n,
        [
            ((None, rows, down), lambda t, b, e: (b, 0, t // n)),
            ((None, rows, across), lambda t, b, e: (b, 0, t % n)),
        ],
        [
            ((None, down, across), lambda t, b, e: (e, t // n, t % n)),
            ((None, 1, across), lambda t, b, e: (e, 0, t % n)),
        ],
        [
            jax.ShapeDtypeStruct((experts, inputs, outputs), jnp.float32),
            jax.ShapeDtypeStruct((experts, 1, outputs), jnp.float32),
        ],
        2 * blocks * rows * inputs * outputs,
        order,
        interpret,
    )(x, g)
    return Layer(kernel, bias[:, 0])


def _whole(x: Float[Array, "b rows i"]) -> Spec:
    """A block with all of its columns."""
    return (None, *x.shape[1:]), lambda t, b, e: (b, 0, 0)


def _rounded(x: Array, kind: Any) -> Array:
    return x.astype(kind).astype(x.dtype)


def _call(
    body: Any,
    tiles: int,
    taken: list[Spec],
    given: list[Spec],
    shapes: list[jax.ShapeDtypeStruct],
    flops: int,
    order: Order,
    interpret: bool,
) -> Any:
    """A Pallas call on tiles and blocks, which begins with blocks' places and experts."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    places, owner = order.sorted()
    blocks, once = len(owner), order.once
    axes = jax.sharding.get_abstract_mesh().manual_axes
    own = jax.sharding.ManualAxisType(varying=frozenset(axes))
    made = [
        jax.ShapeDtypeStruct(shape.shape, shape.dtype, manual_axis_type=own) for shape in shapes
    ]

    def spec(one: Spec) -> Any:
        def at(first: Any, second: Any, places: Any, owner: Any) -> Any:
            tile, block = (second, first) if once else (first, second)
            return one[1](tile, places[block], owner[block])

        return pl.BlockSpec(one[0], at)

    def moved(one: Spec, shape: Any) -> int:
        """Bytes of an array that are read or written, those read again among them."""
        there = np.prod(shape.shape) * shape.dtype.itemsize
        alone = one[0][-2:] == shape.shape[-2:]  # the same for all tiles
        return int(there * (tiles if alone and tiles > 1 and not once else 1))

    def call(*arrays: Array) -> list[Array]:
        bytes_ = sum(map(moved, (*taken, *given), (*arrays, *shapes)))
        cost = pl.CostEstimate(flops=flops, bytes_accessed=bytes_, transcendentals=0)
        grid = (blocks, tiles) if once else (tiles, blocks)
        results = pl.pallas_call(
            body,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                2, grid, [spec(one) for one in taken], [spec(one) for one in given]
            ),
            out_shape=made,
            cost_estimate=cost,
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=VMEM
            ),
            interpret=interpret,
        )(places, owner, *arrays)
        return list(results)

    return call


def _tile(
    width: int, inner: int, rows: int, *, inwards: int, kernels: int, across: int, size: int
) -> int:
    """The largest divisor of a width with which all that a kernel holds has room.

    Args:
      inner: the other side of a kernel's tile, in float32.
      rows: of a block.
      inwards, across: arrays of rows whose width is `inner`, and the tile's; of `size` bytes.
      kernels: how many.
    """
    # All but a quarter, for sums in float32; the next of all is fetched while one is worked on.
    room = VMEM * 3 // 8 - inwards * rows * inner * size
    column = 4 * inner * kernels + rows * (size * across + 4 * (kernels + 1))
    most = max(room // column, LANES)
    return math.gcd(width, 1 << (most.bit_length() - 1))


def _tpu_kept(
    join: Join, x: Array, inward: Any, outward: Layer, order: Order, interpret: bool = False
) -> Any:
    *products, hidden = _tpu_layers(x, inward, order, join, interpret=interpret)
    (y,) = _tpu_layers(hidden, (outward,), order, interpret=interpret)
    return y, tuple(products), hidden


def _tpu_forward(
    join: Join, x: Array, inward: Any, outward: Layer, order: Order, interpret: bool = False
) -> Array:
    (hidden,) = _tpu_layers(x, inward, order, join, keep=False, interpret=interpret)
    return _tpu_layers(hidden, (outward,), order, interpret=interpret)[0]


def _tpu_back(
    join: Join,
    x: Array,
    inward: Any,
    outward: Layer,
    order: Order,
    products: tuple[Array, ...],
    hidden: Array,
    g: Array,
    interpret: bool = False,
) -> Any:
    experts = len(outward.kernel)
    parts = _tpu_parts(join, g, outward.kernel, products, order, interpret)
    back = _tpu_sum(parts, [layer.kernel for layer in inward], order, interpret)
    layers = [_tpu_gradient(x, part, order, experts, interpret) for part in parts]
    return back, *layers, _tpu_gradient(hidden, g, order, experts, interpret)


LOOPS = {"forward": lambda *given: _kept(*given)[0], "kept": _kept, "backward": _back}
KERNELS = {"forward": _tpu_forward, "kept": _tpu_kept, "backward": _tpu_back}
