import pathlib

import numpy as np
import pytest
import scipy.spatial

from ganjax.metrics import precision_recall as module
from ganjax.metrics.precision_recall import precision_recall, radii
from ganjax.parallel.mesh import make_mesh

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
GOLDEN = np.load(GOLDENS / "metrics" / "precision_recall.npz")
REAL, FAKE = GOLDEN["in/real"], GOLDEN["in/fake"]
LAYOUTS = [(2048, 1), (64, 1), (96, 8), (2048, 8)]


def exact(real, fake, k, closed):
    """All pairs in float64, by the definitions."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    within = scipy.spatial.distance.cdist

    def balls(x):
        return np.sort(within(x, x, "sqeuclidean"), axis=1)[:, k]

    def inside(squares, limits):
        return squares <= limits if closed else squares < limits

    in_real = inside(within(fake, real, "sqeuclidean"), balls(real))
    in_fake = inside(within(real, fake, "sqeuclidean"), balls(fake))
    return module.PrecisionRecall(
        in_real.any(axis=1).mean(),
        in_fake.any(axis=1).mean(),
        in_real.sum(axis=1).mean() / k,
        in_real.any(axis=0).mean(),
    )


def mesh_of(devices):
    return make_mesh() if devices == 8 else None


@pytest.mark.parametrize(("block", "devices"), LAYOUTS)
@pytest.mark.parametrize("k", [3, 5])
def test_matches_the_references(k, block, devices):
    options = {"k": k, "block": block, "mesh": mesh_of(devices)}
    closed = precision_recall(REAL, FAKE, **options)
    for name in ("precision", "recall", "f_score"):
        golden = float(GOLDEN[f"out/{name}_k{k}"])
        assert getattr(closed, name) == pytest.approx(golden, rel=1e-6)
    opened = precision_recall(REAL, FAKE, closed=False, **options)
    for name in ("precision", "recall", "density", "coverage"):
        golden = float(GOLDEN[f"out/studiogan_{name}_k{k}"])
        assert getattr(opened, name) == pytest.approx(golden, rel=1e-12)


@pytest.mark.parametrize(("block", "devices"), LAYOUTS)
@pytest.mark.parametrize("closed", [True, False])
def test_ties_are_decided_exactly(closed, block, devices):
    # On a grid nearly every neighbour is as far as another, and many samples are the same.
    rng = np.random.default_rng(1)
    real, fake = rng.integers(0, 3, (2, 150, 4)).astype(np.float32)
    real[:3] += 1000  # an outlier must not blur the others
    result = precision_recall(
        real, fake[:131], k=3, closed=closed, block=block, mesh=mesh_of(devices)
    )
    assert result == exact(real, fake[:131], 3, closed)


@pytest.mark.parametrize(("block", "devices"), LAYOUTS)
def test_half_precision_as_nvidia(block, devices):
    rng = np.random.default_rng(4)
    real, fake = 3 * rng.standard_normal((2, 300, 12)) + 1000  # which float16 tells apart by 1/2
    fake[:40] = np.round(fake[:40])
    real[:40] = np.round(real[:40])

    def distances(x, y):
        x, y = x.astype(np.float16), y.astype(np.float16)
        return scipy.spatial.distance.cdist(x.astype(float), y.astype(float)).astype(np.float16)

    shares = []
    for probes, manifold in ((fake, real), (real, fake)):
        balls = np.sort(distances(manifold, manifold), axis=1)[:, 3]
        shares.append((distances(probes, manifold) <= balls).any(axis=1).mean())
    result = precision_recall(real, fake, half=True, block=block, mesh=mesh_of(devices))
    assert [result.precision, result.recall] == shares
    exactly = precision_recall(real, fake)
    assert [exactly.precision, exactly.recall] != shares


def test_half_precision_rounds_distances_to_the_nearest_even_number():
    radii = np.concatenate([np.arange(2048, 2080.0), np.linspace(0, 9, 50)])
    distances = np.concatenate([np.arange(2046, 2084, 0.5), np.linspace(0, 9.01, 333)])
    balls = module._half_limits(radii**2)
    j, i = np.indices((len(radii), len(distances)))
    held = balls.hold(j.ravel(), distances[i.ravel()] ** 2).reshape(j.shape)
    rounded = distances.astype(np.float16) <= radii.astype(np.float16)[:, None]
    np.testing.assert_array_equal(held, rounded)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_scale_and_offset_do_not_matter(scale):
    rng = np.random.default_rng(2)
    real, fake = rng.standard_normal((2, 120, 16)) + 1e4
    fake = 0.9 * (fake - 1e4) + 1e4
    # Multiples that float32 has, or the distances themselves would be other ones.
    assert precision_recall(scale * real, scale * fake) == exact(real, fake, 3, True)


def test_radii_of_more_ties_than_are_fetched():
    x = np.concatenate([np.eye(40), np.zeros((30, 40))])  # equal distances, equal samples
    expected = np.sort(scipy.spatial.distance.cdist(x, x), axis=1)[:, 5]
    np.testing.assert_allclose(radii(x, 5, block=16), expected, rtol=1e-15)


def test_radii_of_neighbours_that_float32_cannot_tell_apart():
    rng = np.random.default_rng(3)
    shell = rng.standard_normal((100, 20))
    shell *= (1 + 1e-10 * np.arange(1, 101)[::-1, None]) / np.linalg.norm(shell, axis=1)[:, None]
    found = radii(np.concatenate([shell, np.zeros((1, 20))]), 5, block=32)
    assert found[-1] - 1 == pytest.approx(5e-10, rel=1e-4)


def test_a_set_against_itself():
    result = precision_recall(REAL, REAL, k=3)
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)
    # Each ball holds its centre and k neighbours.
    assert result.density == pytest.approx(4 / 3)


def test_smallest_sets():
    assert precision_recall(REAL[:4], FAKE[:5]) == exact(REAL[:4], FAKE[:5], 3, True)
    far = precision_recall(REAL[:10], FAKE[:10] + 100)
    assert far == module.PrecisionRecall(0.0, 0.0, 0.0, 0.0)
    assert far.f_score == 0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="3 fake features; at least 4"):
        precision_recall(REAL, FAKE[:3])
    with pytest.raises(ValueError, match="0 real features; at least 4"):
        precision_recall(REAL[:0], FAKE)
    with pytest.raises(ValueError, match="real features have width 24 and fake features 20"):
        precision_recall(REAL, FAKE[:, :20])
    bad = REAL.copy()
    bad[9, 3] = np.nan
    with pytest.raises(ValueError, match="real features of item 9 are not finite"):
        precision_recall(bad, FAKE)
    with pytest.raises(ValueError, match="k=0 neighbours"):
        precision_recall(REAL, FAKE, k=0)
    with pytest.raises(ValueError, match="whose balls are closed"):
        precision_recall(REAL, FAKE, half=True, closed=False)
    with pytest.raises(ValueError, match="real features of item 0 are not finite"):
        precision_recall(1e6 * REAL, FAKE, half=True)
    with pytest.raises(ValueError, match="5 features; at least 6"):
        radii(REAL[:5], 5)
