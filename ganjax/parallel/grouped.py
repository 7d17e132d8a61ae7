"""A matrix product whose right side differs from block to block of rows, with its gradients.

``lax.ragged_dot`` would do but for its gradient by the kernels, which XLA makes dense: as many
products as there are experts. On a TPU Pallas kernels do it, which read each float32 kernel once
and narrow it on the way; elsewhere a loop over blocks (docs/tpu.md).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

LANES = 128  # of a TPU: tiles are multiples of these
TILE = 2**20  # numbers of a tile of a kernel at most
VMEM = 2**25  # bytes that a kernel may use


@jax.custom_vjp
def grouped_dot(
    x: Float[Array, "b rows i"], kernel: Float[Array, "e i o"], owner: Int[Array, "b"]
) -> Float[Array, "b rows o"]:
    """``x[k] @ kernel[owner[k]]`` for each block k, in the dtype of `x`.

    Sums are in float32 at least, and the kernel's gradient stays so.

    Args:
      owner: ascending, each expert at least once.
    """
    return _choose(_tpu_product, _product, x, kernel, owner)


def _forward(x: Array, kernel: Array, owner: Array) -> Any:
    return grouped_dot(x, kernel, owner), (x, kernel, owner)


def _backward(kept: tuple[Array, Array, Array], g: Array) -> Any:
    x, kernel, owner = kept
    back = _choose(
        functools.partial(_tpu_product, transposed=True),
        functools.partial(_product, transposed=True),
        g,
        kernel,
        owner,
    )
    ours = _choose(_tpu_outer, _outer, x, g, owner, experts=len(kernel))
    return back.astype(x.dtype), ours.astype(kernel.dtype), None


grouped_dot.defvjp(_forward, _backward)


def _choose(on_tpu: Any, elsewhere: Any, a: Array, b: Array, owner: Array, **options: Any) -> Array:
    """One of two formulations, by the platform, and by whether the TPU's tiles fit."""
    ours = functools.partial(on_tpu, **options)
    loop = functools.partial(elsewhere, **options)
    widths = (*a.shape[1:], *b.shape[1:])
    if a.dtype == jnp.float64 or any(width % LANES for width in widths):
        return loop(a, b, owner)
    return lax.platform_dependent(a, b, owner, tpu=ours, default=loop)


def _product(
    x: Float[Array, "b rows a"],
    kernel: Float[Array, "e i o"],
    owner: Int[Array, "b"],
    transposed: bool = False,
) -> Array:
    def one(given: tuple[Array, Array]) -> Array:
        return _dot(given[0], kernel[given[1]].astype(x.dtype), 0 if not transposed else 1)

    return lax.map(one, (x, owner)).astype(x.dtype)


def _outer(
    x: Float[Array, "b rows i"], g: Float[Array, "b rows o"], owner: Int[Array, "b"], experts: int
) -> Float[Array, "e i o"]:
    """The sum of ``x[k].T @ g[k]`` over each expert's blocks."""

    def add(total: Array, given: tuple[Array, Array, Array]) -> tuple[Array, None]:
        a, b, index = given
        return total.at[index].add(_dot(a.T, b)), None

    kind = jnp.promote_types(x.dtype, jnp.float32)
    # Inside of shard_map a loop's state is of one kind from the start: each device has its own.
    axes = jax.sharding.get_abstract_mesh().manual_axes
    zeros = jnp.zeros((experts, x.shape[2], g.shape[2]), kind)
    return lax.scan(add, lax.pcast(zeros, axes, to="varying"), (x, g, owner))[0]


def _dot(a: Array, b: Array, contract: int = 0) -> Array:
    """``a @ b``, or ``a @ b.T`` if dimension 1 of `b` is contracted; sums in float32 at least."""
    kind = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (((1,), (contract,)), ((), ())), preferred_element_type=kind)


def _tpu_product(
    x: Float[Array, "b rows a"],
    kernel: Float[Array, "e i o"],
    owner: Int[Array, "b"],
    transposed: bool = False,
    interpret: bool = False,
) -> Array:
    from jax.experimental import pallas as pl

    blocks, rows, inner = x.shape
    outputs = kernel.shape[1 if transposed else 2]
    tile = _tile(outputs, inner)

    def body(owner: Any, x: Any, kernel: Any, y: Any) -> None:
        del owner  # it has chosen the kernel
        narrow = kernel[...].astype(x.dtype)
        y[...] = _dot(x[...], narrow, 1 if transposed else 0).astype(y.dtype)

    # Blocks of one expert follow each other, so that a tile of its kernel is read once.
    if transposed:
        taken = pl.BlockSpec((None, tile, inner), lambda o, b, owner: (owner[b], o, 0))
    else:
        taken = pl.BlockSpec((None, inner, tile), lambda o, b, owner: (owner[b], 0, o))
    return _call(
        body,
        (outputs // tile, blocks),
        [pl.BlockSpec((None, rows, inner), lambda o, b, owner: (b, 0, 0)), taken],
        pl.BlockSpec((None, rows, tile), lambda o, b, owner: (b, 0, o)),
        jax.ShapeDtypeStruct((blocks, rows, outputs), x.dtype),
        2 * blocks * rows * inner * outputs,
        x.nbytes * (outputs // tile) + kernel.nbytes + x.nbytes // inner * outputs,
        interpret,
    )(owner, x, kernel)


def _tpu_outer(
    x: Float[Array, "b rows i"],
    g: Float[Array, "b rows o"],
    owner: Int[Array, "b"],
    experts: int,
    interpret: bool = False,
) -> Float[Array, "e i o"]:
    from jax.experimental import pallas as pl

    blocks, rows, inputs = x.shape
    outputs = g.shape[2]
    across = _tile(outputs, LANES)
    down = _tile(inputs, across)

    def body(owner: Any, x: Any, g: Any, total: Any) -> None:
        block = pl.program_id(2)

        @pl.when((block == 0) | (owner[block] != owner[jnp.maximum(block - 1, 0)]))
        def _() -> None:
            total[...] = jnp.zeros_like(total)

        total[...] += _dot(x[...].T, g[...])

    return _call(
        body,
        (inputs // down, outputs // across, blocks),
        [
            pl.BlockSpec((None, rows, down), lambda i, o, b, owner: (b, 0, i)),
            pl.BlockSpec((None, rows, across), lambda i, o, b, owner: (b, 0, o)),
        ],
        pl.BlockSpec((None, down, across), lambda i, o, b, owner: (owner[b], i, o)),
        jax.ShapeDtypeStruct((experts, inputs, outputs), jnp.float32),
        2 * blocks * rows * inputs * outputs,
        x.nbytes * (outputs // across)
        + g.nbytes * (inputs // down)
        + 4 * experts * inputs * outputs,
        interpret,
    )(owner, x, g)


def _call(
    body: Any,
    grid: tuple[int, ...],
    taken: list[Any],
    given: Any,
    shape: jax.ShapeDtypeStruct,
    flops: int,
    moved: int,
    interpret: bool,
) -> Any:
    """A Pallas call whose blocks are chosen by its first argument."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    axes = jax.sharding.get_abstract_mesh().manual_axes
    order: Any = ("arbitrary",) * len(grid)
    own = jax.sharding.ManualAxisType(varying=frozenset(axes))
    return pl.pallas_call(
        body,
        grid_spec=pltpu.PrefetchScalarGridSpec(1, grid, taken, given),
        out_shape=jax.ShapeDtypeStruct(shape.shape, shape.dtype, manual_axis_type=own),
        cost_estimate=pl.CostEstimate(flops=flops, bytes_accessed=moved, transcendentals=0),
        compiler_params=pltpu.CompilerParams(dimension_semantics=order, vmem_limit_bytes=VMEM),
        interpret=interpret,
    )


def _tile(width: int, inner: int) -> int:
    """The largest divisor of a width with which a tile of so many rows is not too large."""
    most = max(TILE // inner, LANES)
    return math.gcd(width, 1 << (most.bit_length() - 1))
