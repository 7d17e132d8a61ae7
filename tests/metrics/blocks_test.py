import jax
import numpy as np
import pytest

from ganjax.metrics import blocks
from ganjax.metrics.blocks import Devices, View, check_features, check_pair
from ganjax.parallel.mesh import make_mesh

X = np.arange(26, dtype=np.float32).reshape(13, 2)


def test_blocks_have_one_shape_and_know_their_rows():
    devices = Devices(make_mesh(), block=5)  # rounded up to the 8 devices
    found = list(devices.rows(X))
    assert [block.values.shape for block in found] == [(8, 2)] * 2
    assert [(block.start, block.count) for block in found] == [(0, 8), (8, 5)]
    np.testing.assert_array_equal(np.concatenate([b.values[: b.count] for b in found]), X)
    assert not np.asarray(found[1].values)[5:].any()
    assert len(found[0].values.sharding.device_set) == 8
    assert not found[0].values.is_fully_replicated
    assert next(devices.columns(X)).values.is_fully_replicated
    assert X[found[1].rows].tolist() == X[8:].tolist()


def test_small_sets_get_small_blocks_on_one_device():
    (block,) = Devices(None).rows(X)
    assert block.values.shape == (13, 2)
    assert block.values.devices() == {jax.local_devices()[0]}


def test_views_are_taken_in_float64():
    features = np.array([[1e9 + 1], [1e9 + 3]])
    (block,) = Devices(None).columns(features, View(np.array([1e9]), 2.0))
    assert block.values.dtype == np.float32
    np.testing.assert_array_equal(block.values, [[0.5], [1.5]])


def test_bad_features_are_named(monkeypatch):
    monkeypatch.setattr(blocks, "CHECKED", 4)
    check_features("features", X, at_least=13)
    with pytest.raises(ValueError, match="13 features; at least 14"):
        check_features("features", X, at_least=14)
    with pytest.raises(ValueError, match=r"features have shape \(13,\)"):
        check_features("features", X[:, 0])
    bad = X.copy()
    bad[11] = np.nan
    with pytest.raises(ValueError, match="features of item 11 are not finite"):
        check_features("features", bad)
    with pytest.raises(ValueError, match="one have width 2 and other 1"):
        check_pair("one", X, "other", X[:, :1])
    with pytest.raises(ValueError, match="block=0"):
        Devices(None, 0)
