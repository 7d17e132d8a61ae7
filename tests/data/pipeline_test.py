import jax
import numpy as np
import pytest
from absl import logging
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ganjax.data.demo import Shapes
from ganjax.data.pipeline import Stream, index_at
from ganjax.data.transforms import BrokenItem, Transform
from tests.processes import run


class Numbers:
    """Item i is the number i, as image and as label; some are broken."""

    name = "numbers"
    classes = ()

    def __init__(self, count, broken=()):
        self.count, self.broken, self.reads = count, frozenset(broken), []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads.append(index)
        if index in self.broken:
            raise BrokenItem("truncated")
        return {"image": np.full((2, 2, 1), index % 256, np.uint8), "label": np.int32(index)}

    def fingerprint(self):
        return f"numbers-{self.count}"


def plain(item, rng):
    return item


def noisy(item, rng):
    return {**item, "noise": rng.random(2, np.float32)}


def stream(source, transform=plain, shape=(2, 1, 4), seed=0, **options):
    return Stream(source, transform, shape=shape, seed=seed, **options)


def labels(stream, batches):
    return np.stack([next(stream)["label"] for _ in range(batches)])


def test_every_epoch_is_a_fresh_permutation():
    n = 97
    epochs = [[index_at(5, e * n + i, n) for i in range(n)] for e in range(4)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = [index_at(6, i, n) for i in range(4 * n)]
    matches = np.mean(np.asarray(other).reshape(4, 1, n) == np.asarray(epochs)[None])
    assert matches < 0.05, "neighbouring seeds share no epochs"


def test_the_order_is_pinned():
    """Resuming an old run relies on it: these numbers may never change."""
    assert [index_at(0, p, 1797) for p in (0, 1, 1796, 1797, 10**12)] == ORDER


ORDER = [1631, 1574, 431, 124, 1414]


def test_batches_walk_through_the_stream_in_order():
    got = labels(stream(Numbers(30)), 9).ravel()
    assert got.tolist() == [index_at(0, p, 30) for p in range(9 * 8)]


def test_resumes_at_any_item():
    """Also in the middle of what was a batch, and with another shape of batch."""
    n, start = 50, int(np.random.default_rng().integers(1, 10_000))
    resumed = stream(Numbers(n), noisy, start_items=start)
    batch = next(resumed)
    assert resumed.items == start + 8
    expected = [index_at(0, start + p, n) for p in range(8)]
    assert np.asarray(batch["label"]).ravel().tolist() == expected, f"start={start}"
    other = stream(Numbers(n), noisy, shape=(1, 2, 3), start_items=start, threads=0)
    np.testing.assert_array_equal(
        np.asarray(next(other)["noise"]).reshape(6, 2), np.asarray(batch["noise"]).reshape(8, 2)[:6]
    )


def test_draws_differ_by_position_and_seed():
    first = np.asarray(next(stream(Numbers(4), noisy))["noise"]).reshape(-1, 2)
    assert len({tuple(row) for row in first}) == 8, "each position has its own draws"
    second = np.asarray(next(stream(Numbers(4), noisy, seed=1))["noise"]).reshape(-1, 2)
    assert not (first == second).any()


def test_threads_do_not_matter():
    one, many = (stream(Shapes((8, 8)), shape=(1, 2, 40), threads=t) for t in (0, 4))
    for _ in range(3):
        a, b = next(one), next(many)
        np.testing.assert_array_equal(a["image"], b["image"])


def mesh_sharding(devices, *, axes=("data",)):
    shape = (devices,) if len(axes) == 1 else (devices // 2, 2)
    mesh = jax.make_mesh(
        shape, axes, devices=jax.devices()[:devices], axis_types=(AxisType.Auto,) * len(axes)
    )
    return NamedSharding(mesh, P(None, None, "data"))


@pytest.mark.parametrize("axes", [("data",), ("data", "expert")])
def test_eight_devices_see_what_one_sees(axes):
    one = stream(Shapes((8, 8)), Transform((8, 8), 3, flip=True), shape=(2, 2, 16))
    sharding = mesh_sharding(8, axes=axes)
    many = stream(
        Shapes((8, 8)), Transform((8, 8), 3, flip=True), shape=(2, 2, 16), sharding=sharding
    )
    for _ in range(2):
        a, b = next(one), next(many)
        assert b["image"].sharding.is_equivalent_to(sharding, b["image"].ndim)
        assert b["image"].shape == (2, 2, 16, 8, 8, 3) and b["image"].dtype == np.uint8
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


SHAPE = (2, 2, 12)
COUNT = 101  # of the source: a batch of 48 is no part of an epoch


def transform(item, rng):
    return noisy(Transform((2, 2), 3, flip=True)(item, rng), rng)


def test_resumes_at_any_step_with_another_number_of_processes(tmp_path):
    """One process, then two, then three, see the batches that one sees throughout."""
    steps = sorted(np.random.default_rng().integers(1, 6, 2).tolist())
    one = stream(Numbers(COUNT, broken={7}), transform, SHAPE)
    wanted = [jax.device_get(next(one)) for _ in range(steps[1] + 2)]
    for processes, step in zip((2, 3), steps):
        folder = tmp_path / str(processes)
        folder.mkdir()
        target = f"{__name__}:save_batches"
        run(target, str(folder), str(step), processes=processes)
        parts = [np.load(folder / f"{i}.npz") for i in range(processes)]
        rows = [set(part["rows"].tolist()) for part in parts]
        assert sum(map(len, rows)) == 12 and set.union(*rows) == set(range(12)), steps
        for part in parts:
            read = {index for index in part["reads"].tolist()}
            labels = {index for name in ("0/label", "1/label") for index in part[name].flat}
            assert read - labels <= {7}, "reads its own rows alone"
            for name in (n for n in part.files if "/" in n):
                batch, field = name.split("/")
                expected = wanted[step + int(batch)][field][:, :, part["rows"]]
                np.testing.assert_array_equal(part[name], expected, f"{steps} {name}")


def save_batches(folder, step):
    """In each process: what it holds of two batches from a step on, and what it read for them."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    source = Numbers(COUNT, broken={7})
    start = int(step) * int(np.prod(SHAPE))
    sharding = NamedSharding(mesh, P(None, None, "data"))
    resumed = stream(source, transform, SHAPE, sharding=sharding, start_items=start, threads=0)
    saved = {}
    for batch in range(2):
        for name, value in next(resumed).items():
            shards = sorted(value.addressable_shards, key=lambda shard: shard.index[2].start or 0)
            saved[f"{batch}/{name}"] = np.concatenate([np.asarray(s.data) for s in shards], axis=2)
            rows = [np.arange(SHAPE[2])[shard.index[2]] for shard in shards]
    np.savez(
        f"{folder}/{jax.process_index()}.npz",
        rows=np.concatenate(rows),
        reads=np.array(source.reads),
        **saved,
    )


def test_a_batch_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="12 rows.*8 devices.*config.train.batch"):
        stream(Numbers(9), shape=(1, 1, 12), sharding=mesh_sharding(8))


def test_sharded_repeats_are_an_error():
    sharding = NamedSharding(mesh_sharding(8).mesh, P("data"))
    with pytest.raises(ValueError, match="expected P\\(None, None, data axes\\)"):
        stream(Numbers(9), shape=(8, 1, 8), sharding=sharding)


def test_an_empty_source_is_an_error():
    with pytest.raises(ValueError, match="no items"):
        stream(Numbers(0))


def test_broken_items_are_named_counted_and_replaced_by_the_next_good_one(caplog, monkeypatch):
    broken = stream(Numbers(30, broken={4, 5, 29}), threads=3)
    # absl's logger passes records on to pytest's handler or not, depending on who set it up.
    monkeypatch.setattr(logging.get_absl_logger(), "propagate", False)
    logging.get_absl_logger().addHandler(caplog.handler)
    try:
        got = labels(broken, 8).ravel()
    finally:
        logging.get_absl_logger().removeHandler(caplog.handler)
    order = [index_at(0, p, 30) for p in range(64)]
    replaced = {4: 6, 5: 6, 29: 0}
    assert got.tolist() == [replaced.get(i, i) for i in order]
    assert broken.skipped == 3
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 3, "each is named once"
    assert any("'numbers': item 29 (truncated)" in warning for warning in warnings)


def test_replacement_is_the_same_after_a_resume():
    whole = labels(stream(Numbers(30, broken={4, 5, 29})), 8).ravel()
    rest = labels(stream(Numbers(30, broken={4, 5, 29}), start_items=19), 5).ravel()
    assert rest.tolist() == whole[19:59].tolist()


def test_too_many_broken_items_are_an_error():
    source = Numbers(30, broken=range(3, 9))
    with pytest.raises(ValueError, match="6 broken items in 'numbers'.*config.data.max_broken"):
        labels(stream(source, max_broken=5), 8)
    assert labels(stream(source, max_broken=6), 8).size


def test_a_fault_of_the_storage_is_not_a_broken_item():
    class Unplugged(Numbers):
        def __getitem__(self, index):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        next(stream(Unplugged(5)))
