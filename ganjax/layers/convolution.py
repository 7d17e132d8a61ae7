"""Convolutions that keep, halve or double the resolution, and their gradients.

All are built from one convolution with a stride and its adjoint:

- the gradients of each are the other and `_kernel_gradient`, so the fast formulation of one serves
  the other's gradient too;
- pooling after a convolution, and nearest-neighbour upsampling before one, are folded into the
  kernel: a 3x3 one becomes 4x4 with stride 2, and 4/9 of the multiplications are left;
- under mixed precision (float32 kernels, bfloat16 inputs) gradients of kernels come out in float32,
  so that summing them over devices loses nothing, while inputs' gradients stay in bfloat16.

Costs of the formulations: docs/tpu.md.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers.resample import downsample, upsample

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv2d(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h w o"]:
    """Convolution with an odd kernel and zero padding that keeps the size, in the dtype of `x`."""
    return _strided(x, kernel, 1, kernel.shape[0] // 2)


def conv2d_valid(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Array:
    """Convolution without padding, to [n, h - k + 1, w - k + 1, o]."""
    return _strided(x, kernel, 1, 0)


def conv2d_full(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Array:
    """Convolution of all that touches a pixel, to [n, h + k - 1, w + k - 1, o]."""
    return _transposed(x, kernel, 1, 0)


def conv2d_downsample(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]
) -> Float[Array, "n h/2 w/2 o"]:
    """`downsample(conv2d(x, kernel))`."""
    if _folding_pays(x.shape[1] * x.shape[2] // 4, x.shape[3]):
        return _strided(x, _widened(kernel) / 4, 2, kernel.shape[0] // 2)
    return downsample(conv2d(x, kernel))


def upsample_conv2d(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]
) -> Float[Array, "n 2*h 2*w o"]:
    """`conv2d(upsample(x), kernel)`."""
    if _folding_pays(x.shape[1] * x.shape[2], x.shape[3]):
        return _upsampled(x, kernel)
    return conv2d(upsample(x), kernel)


def _folding_pays(pixels: int, channels: int) -> bool:
    """Whether the arithmetic saved outweighs the making of a wider kernel.

    The first grows with the pixels of the lower resolution, the second does not. The bound is where
    both cost the same with 8 images to a TPU chip; with more images it would be lower.
    """
    return 4 * pixels >= channels


def _widened(kernel: Array) -> Array:
    """[k, k, i, o] to [k + 1, k + 1, i, o]: the kernel convolved with a 2x2 of ones."""
    k = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    return k[:-1, :-1] + k[1:, :-1] + k[:-1, 1:] + k[1:, 1:]


def _reversed(kernel: Array) -> Array:
    """[k, k, i, o] to [k, k, o, i], taps in reverse order: the kernel of the adjoint."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided(x: Array, kernel: Array, stride: int, pad: int) -> Array:
    """[n, s h, s w, i] and [k, k, i, o] to [n, h, w, o] with a pad of (k - s) / 2.

    Its gradients are no convolution with more taps than pixels, as autodiff's would be where the
    result is larger than the input: XLA's CPU compiler swaps their operands, and then has no fast
    form.
    """
    return lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (stride, stride), [(pad, pad)] * 2, dimension_numbers=LAYOUT
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _transposed(x: Array, kernel: Array, stride: int, pad: int) -> Array:
    """[n, h, w, i] and [k, k, i, o] to [n, s h, s w, o]: the adjoint of `_strided`.

    That is, of `_strided(., _reversed(kernel), stride, pad)`.
    """
    kernel = kernel.astype(x.dtype)
    dilated = functools.partial(_dilated, stride=stride, pad=kernel.shape[0] - 1 - pad)
    if stride == 1:
        return dilated(x, kernel)
    # XLA's CPU compiler has no fast form of an input with holes.
    return lax.platform_dependent(x, kernel, cpu=_polyphase, default=dilated)


def _dilated(y: Array, kernel: Array, stride: int, pad: int) -> Array:
    return lax.conv_general_dilated(
        y,
        kernel,
        (1, 1),
        [(pad, pad)] * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=LAYOUT,
    )


def _polyphase(y: Array, kernel: Array) -> Array:
    """As `_dilated` with stride 2: one convolution per parity of the output's row and column."""
    n, h, w, _ = y.shape
    size, out = kernel.shape[0], kernel.shape[-1]
    half = size // 2
    # Output 2 a + phase sees inputs a + start, a + start + 1, ... through every second tap.
    taps = [(half + phase) % 2 for phase in (0, 1)]
    starts = [(phase + first - half) // 2 for phase, first in enumerate(taps)]
    phases = [(p, q) for p in (0, 1) for q in (0, 1)]
    kernels = jnp.concatenate([kernel[taps[p] :: 2, taps[q] :: 2] for p, q in phases], axis=-1)
    low, high = -min(starts), max(starts) + half - 1
    x = lax.conv_general_dilated(
        y, kernels, (1, 1), [(low, high)] * 2, dimension_numbers=LAYOUT
    )  # [n, h + 0 or 1, w + 0 or 1, 4 out]

    def plane(p: int, q: int) -> Array:
        top, left, channel = starts[p] + low, starts[q] + low, (2 * p + q) * out
        return x[:, top : top + h, left : left + w, channel : channel + out]

    rows = [jnp.stack([plane(p, 0), plane(p, 1)], axis=3) for p in (0, 1)]  # [n, h, w, 2, out]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, out)


def _kernel_gradient(
    x: Array, y: Array, stride: int, pad: int, dtype: jnp.dtype, layout: str
) -> Array:
    """Of <y, _strided(x, kernel, stride, pad)> with respect to the kernel.

    Args:
        layout: "HWNC" for [size, size, i, o], "HWCN" for [size, size, o, i].
    """
    # Wide operands at default precision: a TPU multiplies in bfloat16 all the same, but gives, and
    # sums over devices, the wide result.
    return lax.conv_general_dilated(
        x.astype(dtype),
        y.astype(dtype),
        (1, 1),
        [(pad, pad)] * 2,
        rhs_dilation=(stride, stride),
        dimension_numbers=("CHWN", "IHWO", layout),
        precision=lax.Precision.DEFAULT,
    )


def _strided_forward(x, kernel, stride, pad):
    return _strided(x, kernel, stride, pad), (x, kernel)


def _strided_backward(stride, pad, saved, dy):
    x, kernel = saved
    dx = _transposed(dy, _reversed(kernel.astype(dy.dtype)), stride, pad)
    return dx, _kernel_gradient(x, dy, stride, pad, kernel.dtype, "HWNC")


def _transposed_forward(x, kernel, stride, pad):
    return _transposed(x, kernel, stride, pad), (x, kernel)


def _transposed_backward(stride, pad, saved, dy):
    x, kernel = saved
    dx = _strided(dy, _reversed(kernel.astype(dy.dtype)), stride, pad)
    dkernel = _kernel_gradient(dy, x, stride, pad, kernel.dtype, "HWCN")
    return dx, jnp.flip(dkernel, (0, 1))


_strided.defvjp(_strided_forward, _strided_backward)
_transposed.defvjp(_transposed_forward, _transposed_backward)


def _folded(x: Array, kernel: Array) -> Array:
    return _transposed(x, _widened(kernel), 2, kernel.shape[0] // 2)


@jax.custom_vjp
def _upsampled(x: Array, kernel: Array) -> Array:
    """`conv2d(upsample(x), kernel)`, whose gradient is that of the folded form.

    Folded, the gradient is fast everywhere, but the convolution itself only on a CPU: a TPU does
    not skip the holes of a dilated input (docs/tpu.md).
    """
    return lax.platform_dependent(
        x, kernel, cpu=_folded, default=lambda x, kernel: conv2d(upsample(x), kernel)
    )


def _upsampled_forward(x, kernel):
    return _upsampled(x, kernel), (x, kernel)


def _upsampled_backward(saved, dy):
    return jax.vjp(_folded, *saved)[1](dy)


_upsampled.defvjp(_upsampled_forward, _upsampled_backward)
