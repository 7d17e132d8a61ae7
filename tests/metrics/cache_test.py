import pathlib

import numpy as np
import pytest

from ganjax.metrics import cache
from ganjax.metrics.cache import cached, path_of
from ganjax.metrics.frechet import Moments

MOMENTS = Moments.of(np.random.default_rng(0).standard_normal((30, 5)))
PROTOCOL = {"name": "fid50k_full", "real": 50_000, "resize": "tf1"}


class Builds:
    """Counts how often statistics are made."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return MOMENTS.to_arrays()


@pytest.fixture
def build():
    return Builds()


def read(folder, build, source="abc", protocol=PROTOCOL, weights="w1"):
    return cached(folder, source, protocol, weights, build)


def only_file(folder):
    (path,) = (path for path in pathlib.Path(folder).iterdir() if path.suffix == ".npz")
    return path


def test_statistics_are_made_once(tmp_path, build):
    for _ in range(3):
        arrays = read(tmp_path / "new" / "folder", build)
        for name, array in MOMENTS.to_arrays().items():
            np.testing.assert_array_equal(arrays[name], array)
            assert arrays[name].dtype == array.dtype
    assert build.count == 1
    assert Moments.from_arrays(arrays).count == 30
    assert only_file(tmp_path / "new" / "folder").name.startswith("fid50k_full-")


@pytest.mark.parametrize(
    "change", [{"source": "abd"}, {"weights": "w2"}, {"protocol": {**PROTOCOL, "resize": "pil"}}]
)
def test_what_the_numbers_depend_on_is_in_the_key(tmp_path, build, change):
    read(tmp_path, build)
    read(tmp_path, build, **change)
    assert build.count == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_the_order_of_the_protocol_is_not_in_the_key(tmp_path, build):
    read(tmp_path, build)
    read(tmp_path, build, protocol=dict(reversed(PROTOCOL.items())))
    assert build.count == 1


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_file_is_made_anew(tmp_path, build, kept):
    read(tmp_path, build)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.warns(UserWarning, match="made anew: it cannot be read"):
        read(tmp_path, build)
    read(tmp_path, build)
    assert build.count == 2


def test_a_flipped_bit_is_noticed(tmp_path, build):
    read(tmp_path, build)
    path = only_file(tmp_path)
    data = bytearray(path.read_bytes())
    place = data.find(MOMENTS.mean.tobytes())
    assert place > 0
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="made anew"):
        read(tmp_path, build)
    assert build.count == 2


def test_other_numbers_are_noticed(tmp_path, build):
    read(tmp_path, build)
    path = only_file(tmp_path)
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "count": np.array(31)})
    with pytest.warns(UserWarning, match="checksum"):
        read(tmp_path, build)
    np.savez(path, count=np.array(30))
    with pytest.warns(UserWarning, match="KeyError"):
        read(tmp_path, build)
    assert build.count == 3


def test_a_file_of_another_key_is_noticed(tmp_path, build):
    read(tmp_path, build)
    stale = only_file(tmp_path)
    path, _ = path_of(tmp_path, "abd", PROTOCOL, "w1")
    stale.rename(path)
    with pytest.warns(UserWarning, match="another source, protocol or network"):
        read(tmp_path, build, source="abd")
    assert build.count == 2


def test_an_interrupted_write_leaves_nothing(tmp_path, build, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, build)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, build):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot keep"):
        arrays = read(tmp_path / "file" / "cache", build)
    assert int(arrays["count"]) == 30


def test_bad_keys_are_refused(tmp_path, build):
    with pytest.raises(ValueError, match="source='' and weights='w1'"):
        read(tmp_path, build, source="")
    with pytest.raises(ValueError, match="is not JSON"):
        read(tmp_path, build, protocol={"layer": object()})
