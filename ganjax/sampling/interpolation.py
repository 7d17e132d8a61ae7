"""Paths between two points, straight or along the sphere, and closed ones through several."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline

Interpolation = Callable[[Array, Array, Array], Array]

# Below this sine the sphere is flat (or the points are opposite, with no shortest arc).
_FLAT = 1e-6


def linear(
    a: Float[Array, "*n d"], b: Float[Array, "*n d"], t: Float[Array, "*n"]
) -> Float[Array, "*n d"]:
    """The point at `t` in [0, 1] of the straight line from `a` to `b`."""
    t = jnp.asarray(t)[..., None]
    return a + t * (b - a)


def spherical(
    a: Float[Array, "*n d"], b: Float[Array, "*n d"], t: Float[Array, "*n"]
) -> Float[Array, "*n d"]:
    """The point at `t` in [0, 1] of the arc from `a` to `b` (White 2016, "slerp").

    High-dimensional normals lie near a sphere: the straight line between two of them passes
    through lengths that G never saw, the arc does not. Parallel, opposite or zero points have
    no arc of their own: they take the straight line.
    """
    t = jnp.asarray(t)[..., None]
    toward_a, toward_b = _unit(a), _unit(b)
    # Between nearly opposite points arccos of the dot product is 6 % off in float32.
    angle = 2 * jnp.arctan2(_norm(toward_a - toward_b), _norm(toward_a + toward_b))
    sine = jnp.sin(angle)
    flat = (sine < _FLAT) | (_norm(a) == 0) | (_norm(b) == 0)
    safe = jnp.where(flat, 1.0, sine)
    arc = (jnp.sin((1 - t) * angle) * a + jnp.sin(t * angle) * b) / safe
    return jnp.where(flat, a + t * (b - a), arc)


def path(
    a: Float[Array, "*n d"],
    b: Float[Array, "*n d"],
    points: int,
    between: Interpolation = spherical,
) -> Float[Array, "*n points d"]:
    """`points` equally spaced points from `a` to `b`, both ends included."""
    if points < 2:
        raise ValueError(f"a path of {points} points; at least 2 (its ends) are wanted")
    t = jnp.broadcast_to(jnp.linspace(0.0, 1.0, points), (*a.shape[:-1], points))
    return between(
        jnp.broadcast_to(a[..., None, :], (*t.shape, a.shape[-1])),
        jnp.broadcast_to(b[..., None, :], (*t.shape, b.shape[-1])),
        t,
    )


def cycle(anchors: int, t: float) -> Float[np.ndarray, "anchors"]:
    """Weights of the anchors at time `t` of a smooth path through all of them and round again.

    The path is a cubic spline: it passes anchor k at t = k / anchors, has no corner, and 1 is 0
    again. The weights sum to 1; some are negative between anchors.
    """
    if anchors < 2:
        raise ValueError(f"a path through {anchors} anchors; at least 2 are wanted (--anchors)")
    passed = np.arange(anchors + 1)
    spline = CubicSpline(passed, np.eye(anchors)[passed % anchors], bc_type="periodic")
    return np.asarray(spline(t % 1.0 * anchors), np.float32)


def on_sphere(
    weights: Float[np.ndarray | Array, "k"], points: Float[np.ndarray | Array, "*n k d"]
) -> Float[Array, "*n d"]:
    """The weighted sum of points with the weighted sum of their lengths.

    A sum of latents is shorter than they are, and G never saw it.
    """
    weights = jnp.asarray(weights)
    total = jnp.einsum("k,...kd->...d", weights, jnp.asarray(points))
    lengths = jnp.linalg.norm(jnp.asarray(points), axis=-1)
    return _unit(total) * jnp.einsum("k,...k->...", weights, lengths)[..., None]


def _norm(x: Array) -> Array:
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


def _unit(x: Array) -> Array:
    norm = _norm(x)
    return x / jnp.where(norm == 0, 1.0, norm)
