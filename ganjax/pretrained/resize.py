"""Resizing by the rules of the libraries that published numbers were made with.

Every rule is linear and separable, so each is a matrix [out, in] for an axis, made on the host; the
device multiplies by two of them. They differ in where a sample lies and in what it averages:

    tf1            i * in / out             upper neighbour clamped   TensorFlow 1 `resize_bilinear`
    half_pixel     (i + 0.5) * in / out - 0.5                         PyTorch, align_corners=False
    align_corners  i * (in - 1) / (out - 1)                           PyTorch, align_corners=True

None of these three smooths before it shrinks; `antialiased` does, as Pillow and
`torchvision.transforms.Resize(antialias=True)` do.
"""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Rule = Callable[[int, int], np.ndarray]  # (out, in) -> matrix [out, in]


def resize(
    images: Float[Array, "*n h w c"], size: tuple[int, int], rule: Rule
) -> Float[Array, "*n {size[0]} {size[1]} c"]:
    """Images at another height and width; values are neither rounded nor clipped."""
    height, width = images.shape[-3:-1]
    for axis, (out, old) in enumerate(((size[0], height), (size[1], width))):
        matrix = jnp.asarray(rule(out, old), images.dtype)
        equation = ("oh,...hwc->...owc", "ow,...hwc->...hoc")[axis]
        images = jnp.einsum(equation, matrix, images, precision="highest")
    return images


def tf1(out: int, size: int) -> np.ndarray:
    """TensorFlow 1 without align_corners: positions are float32 multiples of a float32 ratio."""
    position = np.arange(out, dtype=np.float32) * np.float32(size / out)
    return _linear(position, size)


def half_pixel(out: int, size: int) -> np.ndarray:
    """Pixel centres at half-integers, positions below the first centre moved onto it."""
    position = np.maximum((np.arange(out) + 0.5) * (size / out) - 0.5, 0.0)
    return _linear(position, size)


def align_corners(out: int, size: int) -> np.ndarray:
    """First onto first, last onto last."""
    position = np.arange(out) * ((size - 1) / max(out - 1, 1))
    return _linear(position, size)


def antialiased(out: int, size: int, kernel: str = "bicubic") -> np.ndarray:
    """Pillow's resampling: the kernel is stretched by the ratio where the image shrinks.

    Args:
        kernel: "bilinear" or "bicubic" (a = -0.5).
    """
    filter_, radius = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}[kernel]
    ratio = size / out
    stretch = max(ratio, 1.0)
    matrix = np.zeros((out, size))
    for i in range(out):
        centre = (i + 0.5) * ratio
        first = max(math.floor(centre - radius * stretch + 0.5), 0)
        last = min(math.floor(centre + radius * stretch + 0.5), size)
        weights = filter_((np.arange(first, last) - centre + 0.5) / stretch)
        matrix[i, first:last] = weights / weights.sum()
    return matrix


bicubic: Rule = functools.partial(antialiased, kernel="bicubic")


def _linear(position: np.ndarray, size: int) -> np.ndarray:
    low = np.minimum(position.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    fraction = position - low.astype(position.dtype)
    matrix = np.zeros((len(position), size))
    rows = np.arange(len(position))
    np.add.at(matrix, (rows, low), 1.0 - fraction)
    np.add.at(matrix, (rows, high), fraction)
    return matrix


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' kernel, 1981."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
