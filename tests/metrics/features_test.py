"""Features and moments on one device, eight, and two processes; the last batch is padded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.metrics import features as module
from ganjax.metrics.features import Accumulator, Extractor, moments_of
from ganjax.metrics.frechet import Moments, distance
from ganjax.metrics.hosts import gather_rows, share
from ganjax.metrics.kid import maximum_mean_discrepancy
from ganjax.metrics.precision_recall import precision_recall
from ganjax.parallel.mesh import make_mesh
from tests import processes

COUNT = 203  # divides by no batch
WIDTH = 24


def images(start, stop, shift=0):
    """Pictures by their number, uint8 [n, 8, 8, 3]."""
    rows = [np.random.default_rng([shift, i]).integers(256, size=(8, 8, 3)) for i in range(COUNT)]
    return (np.stack(rows)[start:stop] // (1 + shift)).astype(np.uint8)


def weights():
    rng = np.random.default_rng(7)
    return {
        "conv": rng.standard_normal((3, 3, 3, 16)).astype(np.float32) / 5,
        "dense": rng.standard_normal((16 * 16, WIDTH)).astype(np.float32) / 16,
    }


def network(variables, x):
    x = x.astype(jnp.float32) / 127.5 - 1 + 0.5  # padding has features of its own
    x = jax.lax.conv_general_dilated(
        x, variables["conv"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(x).reshape(len(x), -1) @ variables["dense"]


def batches(numbers, sizes=(13, 1, 30), shift=0):
    """This process's pictures in parts of odd sizes."""
    everything = images(0, COUNT, shift)
    start, i = numbers.start, 0
    while start < numbers.stop:
        stop = min(start + sizes[i % len(sizes)], numbers.stop)
        yield everything[start:stop]
        start, i = stop, i + 1


def measure(mesh, batch):
    """Moments and features of all processes' pictures of both sets."""
    own = share(COUNT)
    extractor = Extractor(network, weights(), batch, mesh)
    found = {}
    for name, shift in (("real", 0), ("fake", 1)):
        features = list(extractor(batches(own, shift=shift)))
        for key, value in moments_of(features).to_arrays().items():
            found[f"{name}/{key}"] = value
        found[f"{name}/features"] = gather_rows(np.concatenate(features))
    return found


def moments_in(found, name):
    return Moments.from_arrays(
        {key: found[f"{name}/{key}"] for key in ("count", "mean", "scatter")}
    )


@functools.cache
def on_one_device():
    with jax.default_matmul_precision("highest"):
        return {
            name: np.asarray(network(weights(), images(0, COUNT, shift)))
            for name, shift in (("real", 0), ("fake", 1))
        }


def check(found):
    """Against all pictures at once on one device."""
    expected = {name: Moments.of(x) for name, x in on_one_device().items()}
    for name, moments in expected.items():
        ours = moments_in(found, name)
        assert ours.count == COUNT
        scale = np.abs(moments.mean).max()
        np.testing.assert_allclose(ours.mean, moments.mean, rtol=0, atol=1e-6 * scale)
        scale = np.abs(moments.scatter).max()
        np.testing.assert_allclose(ours.scatter, moments.scatter, rtol=0, atol=1e-6 * scale)
        features = on_one_device()[name]
        assert found[f"{name}/features"].dtype == np.float32
        np.testing.assert_allclose(
            found[f"{name}/features"], features, rtol=0, atol=1e-6 * np.abs(features).max()
        )
    golden = distance(expected["real"], expected["fake"])
    ours = distance(moments_in(found, "real"), moments_in(found, "fake"))
    assert golden > 1
    assert abs(ours - golden) <= 1e-4 * max(1, golden)


@pytest.mark.parametrize(("devices", "batch"), [(1, 16), (1, 500), (8, 16), (8, 60), (8, 203)])
def test_neither_devices_nor_batches_matter(devices, batch):
    check(measure(make_mesh({"data": devices}, jax.devices()[:devices]), batch))


@pytest.mark.slow
def test_two_processes_agree(tmp_path):
    processes.run(f"{__name__}:one_of_two", str(tmp_path), processes=2, devices=4)
    both = []
    for process in range(2):
        with np.load(tmp_path / f"{process}.npz") as arrays:
            both.append(dict(arrays))
        check(both[-1])
    for name in both[0]:  # bit for bit
        np.testing.assert_array_equal(both[0][name], both[1][name])
    sets = both[0]["real/features"], both[0]["fake/features"]
    assert both[0]["kid"] == pytest.approx(maximum_mean_discrepancy(*sets), rel=1e-6)
    shares = precision_recall(*sets)
    assert both[0]["precision_recall"].tolist() == [
        shares.precision, shares.recall, shares.density, shares.coverage
    ]  # fmt: skip


def one_of_two(folder):
    """In each of two processes of four devices."""
    mesh = make_mesh()
    process = jax.process_index()
    found = measure(mesh, 16)
    shares = precision_recall(found["real/features"], found["fake/features"], block=64, mesh=mesh)
    found["precision_recall"] = np.array(
        [shares.precision, shares.recall, shares.density, shares.coverage]
    )
    found["kid"] = maximum_mean_discrepancy(
        found["real/features"], found["fake/features"], block=64, mesh=mesh
    )
    # A global array: each process takes the rows that lie on its devices.
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everything = images(0, 64)
    split = jax.make_array_from_callback(everything.shape, sharding, lambda i: everything[i])
    rows = np.concatenate(list(Extractor(network, weights(), 16, mesh)([split])))
    assert len(rows) == 32
    np.testing.assert_array_equal(gather_rows(rows), found["real/features"][:64])
    np.savez(f"{folder}/{process}.npz", **found)


def test_trees_go_in_and_come_out():
    extractor = Extractor(lambda v, x: {"sum": x["a"] + x["b"], "twice": (2 * x["a"],)}, {}, 8)
    a, b = np.arange(20.0, dtype=np.float32).reshape(10, 2), np.ones((10, 2), np.float32)
    found = list(extractor([{"a": a[:7], "b": b[:7]}, {"a": a[7:], "b": b[7:]}]))
    assert [len(part["sum"]) for part in found] == [8, 2]
    np.testing.assert_array_equal(np.concatenate([part["sum"] for part in found]), a + 1)
    np.testing.assert_array_equal(np.concatenate([part["twice"][0] for part in found]), 2 * a)


def test_the_network_computes_at_the_highest_precision():
    seen = []

    def function(variables, x):
        seen.append(jax.config.jax_default_matmul_precision)
        return x

    with jax.default_matmul_precision("bfloat16"):
        list(Extractor(function, {}, 8)([np.zeros((1, 2))]))
    assert seen == ["highest"]


def test_bad_samples_are_named():
    extractor = Extractor(network, weights(), 8)
    with pytest.raises(ValueError, match="there are no samples"):
        list(extractor([]))
    mixed = [np.zeros((5, 8, 8, 3), np.uint8), np.zeros((1, 8, 9, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"samples from 5 on are \(\(8, 9, 3\), 'uint8'\)"):
        list(extractor(mixed))
    with pytest.raises(ValueError, match="batch=0"):
        Extractor(network, weights(), 0)
    broken = weights() | {"dense": np.full((256, WIDTH), np.nan, np.float32)}
    with pytest.raises(ValueError, match="features of item 0 are not finite"):
        moments_of(Extractor(network, broken, 8)([images(0, 5)]))


def test_accumulated_moments_are_those_of_all_at_once(monkeypatch):
    x = np.random.default_rng(0).standard_normal((100, 2, 3))
    monkeypatch.setattr(module, "ROWS", 32)
    accumulator = Accumulator()
    for part in np.split(x, [5, 5, 60, 99]):
        accumulator.update(part)
    expected = Moments.of(x.reshape(100, 6))
    assert accumulator.moments().count == 100
    np.testing.assert_allclose(accumulator.moments().mean, expected.mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(accumulator.moments().scatter, expected.scatter, rtol=1e-10)
    with pytest.raises(ValueError, match="width 5 after ones of width 6"):
        accumulator.update(np.zeros((1, 5)))
        accumulator.moments()
    with pytest.raises(ValueError, match="there are no features"):
        Accumulator().moments()
