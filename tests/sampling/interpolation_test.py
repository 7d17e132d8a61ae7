import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.sampling import interpolation

A = jnp.array([[3.0, 0.0, 0.0], [1.0, 2.0, -1.0]])
B = jnp.array([[0.0, 3.0, 0.0], [0.5, -1.0, 2.0]])


@pytest.mark.parametrize("between", [interpolation.linear, interpolation.spherical])
def test_ends_are_the_points_themselves(between):
    points = interpolation.path(A, B, 5, between)
    assert points.shape == (2, 5, 3)
    np.testing.assert_allclose(points[:, 0], A, atol=1e-6)
    np.testing.assert_allclose(points[:, -1], B, atol=1e-6)


def test_the_arc_keeps_length_and_turns_evenly():
    arc = interpolation.path(A[:1], B[:1], 4)[0]
    degrees = np.radians([0.0, 30.0, 60.0, 90.0])
    expected = 3 * np.stack([np.cos(degrees), np.sin(degrees), 0 * degrees], axis=1)
    np.testing.assert_allclose(arc, expected, atol=1e-6)


def test_the_straight_line_is_straight():
    middle = interpolation.path(A, B, 3, interpolation.linear)[:, 1]
    np.testing.assert_allclose(middle, (A + B) / 2, atol=1e-6)


@pytest.mark.parametrize("b", [A[0], 2 * A[0], -A[0], 0 * A[0], A[0] + jnp.array([0.0, 1e-6, 0.0])])
def test_points_without_an_arc_take_the_straight_line(b):
    points = interpolation.path(A[0], b, 5)
    np.testing.assert_allclose(
        points, interpolation.path(A[0], b, 5, interpolation.linear), atol=1e-6
    )


def test_nearly_opposite_points_still_have_an_arc():
    b = 3 * jnp.array([-jnp.cos(1e-3), jnp.sin(1e-3), 0.0])
    middle = interpolation.spherical(A[0], b, jnp.float32(0.5))
    np.testing.assert_allclose(middle, [0.0, 3.0, 0.0], atol=5e-3)


def test_one_point_is_no_path():
    with pytest.raises(ValueError, match="at least 2"):
        interpolation.path(A, B, 1)


@pytest.mark.parametrize("anchors", [2, 3, 5])
def test_a_cycle_passes_its_anchors_and_closes_without_a_corner(anchors):
    at_anchors = [interpolation.cycle(anchors, k / anchors) for k in range(anchors)]
    np.testing.assert_allclose(at_anchors, np.eye(anchors), atol=1e-6)
    around = np.stack([interpolation.cycle(anchors, t) for t in np.linspace(0, 2, 401)])
    np.testing.assert_allclose(around.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(around[:200], around[200:400], atol=1e-6)  # again and again
    speed = np.diff(around, axis=0)
    assert np.abs(np.diff(speed, axis=0)).max() < 0.1 * np.abs(speed).max()


def test_one_anchor_is_no_cycle():
    with pytest.raises(ValueError, match="through 1 anchors; at least 2 are wanted"):
        interpolation.cycle(1, 0.0)


def test_points_on_the_sphere_are_as_long_as_their_anchors():
    points = jnp.stack([A[0], B[0], -2 * B[0]])  # of lengths 3, 3 and 6
    for k in range(3):
        at = interpolation.on_sphere(np.eye(3, dtype=np.float32)[k], points)
        np.testing.assert_allclose(at, points[k], atol=1e-6)
    half = interpolation.on_sphere(np.array([0.5, 0.5, 0], np.float32), points)
    np.testing.assert_allclose(half, np.array([1, 1, 0]) * 3 / np.sqrt(2), atol=1e-6)
    many = interpolation.on_sphere(np.array([0.5, 0, 0.5], np.float32), jnp.stack([points] * 2))
    np.testing.assert_allclose(np.linalg.norm(many, axis=-1), [4.5, 4.5], atol=1e-5)
