import contextlib
import os
import pathlib
import resource
import time
import warnings

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from ganjax import checkpoint
from ganjax import config as configs
from ganjax.checkpoint import CheckpointError, Checkpoints
from ganjax.config import ConfigError
from ganjax.parallel.mesh import make_mesh
from tests import processes

CONFIG = ConfigDict(dict(train=dict(images=100, batch=8), model=dict(attention=(16, 32))))


@flax.struct.dataclass
class Player:
    params: object
    collections: object
    optimizer: object


@flax.struct.dataclass
class State:
    step: object
    items: object
    players: object
    ema: object
    extras: object


def example(seed=0, width=8):
    """A train state with every kind of leaf, of numbers that do not compress."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def player():
        params = {"linear": {"kernel": normal(16, width), "bias": normal(width)}}
        return Player(
            params=params,
            collections={"batch_stats": {"mean": normal(width)}, "spectral": {}},
            optimizer={"all": optax.adam(1e-3).init(params), "plain": optax.sgd(1.0).init(params)},
        )

    g, d = player(), player()
    return State(
        step=jnp.int32(rng.integers(1000)),
        items=jnp.uint32(4_000_000_000),
        players={"g": g, "d": d},
        ema={"params": g.params, **g.collections},
        extras={
            "p": None,
            "half": normal(7).astype(jnp.bfloat16),
            "counts": jnp.asarray(rng.integers(-(2**31), 2**31, 5), jnp.int32),
            "odd": jnp.asarray([0.0, -0.0, np.nan, np.inf, 1e-45], jnp.float32),
        },
    )


def abstract(state, place=lambda leaf: leaf.sharding):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place(leaf)), state
    )


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def data_files(directory):
    """The files of a step, the largest first."""
    files = [file for file in pathlib.Path(directory).rglob("*") if file.is_file()]
    return sorted(files, key=lambda file: -file.stat().st_size)


@pytest.fixture
def run(tmp_path):
    """A workdir with the checkpoints of steps 1 and 2, and their states."""
    states = {1: example(1), 2: example(2)}
    with Checkpoints(tmp_path) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state)
    return tmp_path, states


# What is kept.


def test_a_state_comes_back_bit_by_bit(tmp_path):
    state = example()
    with Checkpoints(tmp_path, config=CONFIG) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.save(7, state)
        restored, step = checkpoints.restore(abstract(state))
        assert step == checkpoints.latest_step() == 7
    assert_same_bits(restored, state)
    restored, _ = Checkpoints(tmp_path).restore(abstract(state))  # as another process would
    assert_same_bits(restored, state)


def place_on(mesh):
    """Kernels split over the whole mesh, all else on each of its devices."""
    split = NamedSharding(mesh, P(("data", "expert")))
    return lambda leaf: split if leaf.ndim == 2 else NamedSharding(mesh, P())


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (8, 4)])
def test_a_state_moves_to_another_mesh(tmp_path, before, after):
    state = example()
    there, here = (place_on(make_mesh(devices=jax.devices()[:n])) for n in (before, after))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, jax.device_put(state, jax.tree.map(there, state)))
        restored, _ = checkpoints.restore(abstract(state, here))
    assert_same_bits(restored, state)
    kernel = restored.players["g"].params["linear"]["kernel"]
    assert kernel.sharding == here(kernel)
    assert len(kernel.addressable_shards) == after


def test_a_shape_without_a_place_goes_to_one_device(tmp_path):
    state = example()
    place = place_on(make_mesh())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, jax.device_put(state, jax.tree.map(place, state)))
        restored, _ = checkpoints.restore(jax.eval_shape(lambda: state))
    assert_same_bits(restored, state)
    assert restored.step.sharding.device_set == {jax.devices()[0]}


def test_a_branch_can_be_read_alone(run):
    workdir, states = run
    restored, step = Checkpoints(workdir, read_only=True).restore({"ema": abstract(states[2].ema)})
    assert step == 2
    assert_same_bits(restored, {"ema": states[2].ema})


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    change = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    state = {f"w{i}": jax.random.normal(jax.random.key(i), (256, 256)) for i in range(8)}
    jax.block_until_ready(change(jax.tree.map(jnp.copy, state)))  # compile
    saved = jax.tree.map(lambda x: np.array(x, copy=True), state)
    wanted = abstract(state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        for _ in range(3):
            state = jax.block_until_ready(change(state))
        restored, _ = checkpoints.restore(wanted)
    assert_same_bits(restored, saved)


def test_the_newest_and_the_best_are_kept(tmp_path):
    state = {"w": jnp.ones(3)}
    values = {1: 9.0, 2: 3.0, 3: float("nan"), 4: 5.0, 5: 8.0, 6: None, 7: 7.0}
    with Checkpoints(tmp_path, keep=2, best=("fid", "min")) as checkpoints:
        for step, value in values.items():
            checkpoints.save(step, state, None if value is None else {"fid": value})
        checkpoints.wait()
        assert checkpoint.steps(tmp_path) == [2, 6, 7]
        assert checkpoints.best_step() == 2
        assert checkpoints.metrics(2) == {"fid": 3.0}
        assert checkpoints.metrics(6) == {}
    with Checkpoints(tmp_path, keep=2, best=("fid", "max")) as checkpoints:  # a later process
        assert checkpoints.best_step() == 7
        checkpoints.save(8, state, {"fid": 1.0})
        checkpoints.save(9, state, {"fid": 7.0})
        checkpoints.wait()
        assert checkpoint.steps(tmp_path) == [8, 9]  # of equals, the newer


def test_an_old_step_is_moved_away_before_it_is_deleted(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", lambda *args, **kwargs: None)  # killed here
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            for step in (1, 2):
                checkpoints.save(step, {"w": jnp.ones(3)})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", checkpoint.DELETED]
    with Checkpoints(tmp_path, read_only=True):
        assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", checkpoint.DELETED]
    with Checkpoints(tmp_path):
        assert os.listdir(tmp_path / "checkpoints") == ["2"]


def test_without_a_metric_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, {"w": jnp.ones(3)}, {"fid": 1.0})
        checkpoints.wait()
        assert checkpoint.steps(tmp_path) == [3, 4]
        assert checkpoints.best_step() is None


def test_a_step_that_is_there_is_left_alone(run):
    workdir, states = run
    with Checkpoints(workdir) as checkpoints:
        assert not checkpoints.save(2, example(3))
        restored, _ = checkpoints.restore(abstract(states[2]))
    assert_same_bits(restored, states[2])


def test_save_does_not_hold_the_step_up(tmp_path):
    state = {f"w{i}": jnp.ones((32, 32)) for i in range(100)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, wait=True)
        begun = time.monotonic()
        checkpoints.save(1, state)
        assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(dict(keep=0), "checkpoint.keep is 0"), (dict(best=("fid", "least")), "'min' or 'max'")],
)
def test_wrong_arguments(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        Checkpoints(tmp_path, **arguments)


# Damage.


def test_no_damaged_file_is_ever_restored(run):
    workdir, states = run
    wanted = abstract(states[2])
    directory = workdir / "checkpoints" / "2"
    checkpoints = Checkpoints(workdir)
    sealed = [f for f in data_files(directory) if f.parent != directory]
    assert len(sealed) > 5
    for file in [*sealed, directory / checkpoint.CHECKSUMS]:
        data = file.read_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 0x10
        flipped = bytes(flipped) if file in sealed else None
        for damaged in (None, b"", data[: len(data) // 2], flipped):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            with pytest.raises(CheckpointError) as error:
                checkpoints.restore(wanted, 2)
            assert str(directory) in str(error.value) and file.name in str(error.value)
            assert "there are 1, 2" in str(error.value)
        file.write_bytes(data)
    restored, _ = checkpoints.restore(wanted, 2)
    assert_same_bits(restored, states[2])


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(run):
    workdir, states = run
    largest = data_files(workdir / "checkpoints" / "2")[0]
    os.truncate(largest, 100)
    with Checkpoints(workdir) as checkpoints:
        with pytest.warns(UserWarning, match=r"2 is damaged: .* has 100 bytes.*\(1 damaged so far"):
            restored, step = checkpoints.restore(abstract(states[1]))
        assert step == checkpoints.latest_step() == 1
        assert_same_bits(restored, states[1])
        assert checkpoints.damaged == [str(workdir / "checkpoints" / "damaged-2-1")]
        assert (workdir / "checkpoints" / "damaged-2-1" / checkpoint.CHECKSUMS).exists()
        checkpoints.save(2, states[2], wait=True)  # the run comes by again
        restored, step = checkpoints.restore(abstract(states[2]))
    assert step == 2
    assert_same_bits(restored, states[2])


def test_a_reader_moves_nothing(run):
    workdir, states = run
    os.truncate(data_files(workdir / "checkpoints" / "2")[0], 100)
    (workdir / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()  # a run is writing it
    before = sorted(os.listdir(workdir / "checkpoints"))
    reader = Checkpoints(workdir, read_only=True)
    with pytest.warns(UserWarning, match="2 is damaged"):
        _, step = reader.restore(abstract(states[1]))
    assert step == 1
    with pytest.raises(ValueError, match="read_only=True"):
        reader.save(5, states[1])
    reader.close()
    assert sorted(os.listdir(workdir / "checkpoints")) == before


def test_a_reader_is_quiet(run, tmp_path, caplog):
    workdir, states = run
    with Checkpoints(workdir, read_only=True) as reader:
        reader.restore(abstract(states[2]))
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        Checkpoints(tmp_path / "nowhere", read_only=True).restore({})
    assert not (tmp_path / "nowhere").exists()
    assert not caplog.records


def test_damage_everywhere_is_an_error(run):
    workdir, states = run
    for step in (1, 2):
        (workdir / "checkpoints" / str(step) / "state" / "manifest.ocdbt").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CheckpointError, match="No checkpoint in .* is whole: .*damaged-2-1.*1"):
            Checkpoints(workdir).restore(abstract(states[1]))


def test_a_half_written_checkpoint_is_not_one(run):
    workdir, states = run
    half = workdir / "checkpoints" / "4.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "_METADATA").write_text("{")
    assert checkpoint.steps(workdir) == [1, 2]
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.restore(abstract(states[2]))[1] == 2
        checkpoints.save(3, states[1], wait=True)
    assert not half.exists()
    assert checkpoint.steps(workdir) == [1, 2, 3]


@contextlib.contextmanager
def files_of_at_most(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_only_the_checkpoint_that_did_not_fit(run):
    workdir, states = run
    large = {"w": jax.random.normal(jax.random.key(0), (512, 512))}
    checkpoints = Checkpoints(workdir, keep=1)
    with files_of_at_most(100_000):
        checkpoints.save(3, large)
        with pytest.raises(CheckpointError) as error:
            checkpoints.wait()
        assert checkpoint.steps(workdir) == [1, 2]
        assert not list((workdir / "checkpoints").glob("3*"))  # it would fill the disk
    for words in (f"{workdir}/checkpoints/3 could not", "File too large", "MiB are free", "1, 2"):
        assert words in str(error.value)
    assert checkpoints.latest_step() == 2
    assert_same_bits(checkpoints.restore(abstract(states[2]))[0], states[2])
    checkpoints.save(3, large, wait=True)  # there is room again
    assert checkpoint.steps(workdir) == [3]
    checkpoints.close()


def test_check_reports_a_failed_write_soon(run):
    workdir, _ = run
    with files_of_at_most(100_000), pytest.raises(CheckpointError, match="3 could not be written"):
        checkpoints = Checkpoints(workdir)
        checkpoints.save(3, {"w": jax.random.normal(jax.random.key(0), (512, 512))})
        for _ in range(1000):
            checkpoints.check()
            time.sleep(0.01)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.check()


def test_the_first_error_is_the_one_that_is_seen(run):
    workdir, _ = run
    with files_of_at_most(100_000), pytest.raises(KeyError, match="mine"):
        with Checkpoints(workdir) as checkpoints:
            checkpoints.save(3, {"w": jax.random.normal(jax.random.key(0), (512, 512))})
            raise KeyError("mine")


# Another config.


def test_no_checkpoint_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no checkpoint in .*checkpoints\."):
        Checkpoints(tmp_path).restore({})


def test_a_step_that_is_not_there_is_an_error(run):
    workdir, states = run
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5 in .*; there are 1, 2\."):
        Checkpoints(workdir).restore(abstract(states[1]), 5)


def test_another_shape_is_named(run):
    workdir, states = run
    words = r"checkpoints/2 is of another config: 'players/d/params/linear/bias' has shape "
    words += r"\(8,\) in it, and shape \(12,\) is wanted"
    with pytest.raises(CheckpointError, match=words):
        Checkpoints(workdir).restore(
            {"players": abstract(example(width=12)).players, "ema": abstract(states[1]).ema}
        )


def test_another_dtype_is_named(run):
    workdir, states = run
    wanted = abstract(states[1])
    half = jax.ShapeDtypeStruct((7,), jnp.float32)
    wanted = wanted.replace(extras={**wanted.extras, "half": half})
    with pytest.raises(CheckpointError, match="'extras/half' is bfloat16 in it, and float32 is"):
        Checkpoints(workdir).restore(wanted)


def test_a_parameter_too_many_or_too_few_is_named(run):
    workdir, states = run
    wanted = abstract(states[1])
    more = wanted.replace(extras={**wanted.extras, "new": jax.ShapeDtypeStruct((3,), "float32")})
    with pytest.raises(CheckpointError, match=r"it has no 'extras/new', .* of shape \(3,\)"):
        Checkpoints(workdir).restore(more)
    fewer = wanted.replace(extras={k: v for k, v in wanted.extras.items() if k != "odd"})
    with pytest.raises(CheckpointError, match=r"has 'extras/odd' of shape \(5,\), which is not"):
        Checkpoints(workdir).restore(fewer)
    assert checkpoint.steps(workdir) == [1, 2]  # not damaged: nothing is set aside


# The workdir.


def test_prepare_keeps_the_config(tmp_path):
    assert checkpoint.prepare(tmp_path, CONFIG) == tmp_path
    assert checkpoint.read_config(tmp_path).model.attention == (16, 32)
    assert os.listdir(tmp_path) == [checkpoint.CONFIG]


def test_each_checkpoint_holds_the_config(tmp_path):
    with Checkpoints(tmp_path, config=CONFIG) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(3)})
    stored = [f.read_text() for f in (tmp_path / "checkpoints" / "1" / "config").iterdir()]
    assert any('"attention": [16, 32]' in text for text in stored)


def test_prepare_compares_with_the_run_that_is_there(run):
    workdir, _ = run
    with pytest.warns(UserWarning, match=r"has checkpoints but no config\.json"):
        checkpoint.prepare(workdir, CONFIG)
    longer, other = CONFIG.copy_and_resolve_references(), CONFIG.copy_and_resolve_references()
    longer.train.images, other.train.batch = 200, 16
    checkpoint.prepare(workdir, longer)
    assert checkpoint.read_config(workdir).train.images == 200
    with pytest.raises(ConfigError, match="train.batch: 8 then, 16 now"):
        checkpoint.prepare(workdir, other)
    assert configs.diff(checkpoint.read_config(workdir), longer) == []


def test_a_workdir_without_checkpoints_takes_any_config(tmp_path):
    checkpoint.prepare(tmp_path, CONFIG)
    other = CONFIG.copy_and_resolve_references()
    other.train.batch = 16
    checkpoint.prepare(tmp_path, other)
    assert checkpoint.read_config(tmp_path).train.batch == 16


def test_a_directory_without_a_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not the directory of a run"):
        checkpoint.read_config(tmp_path)


# Several processes.


def test_two_processes_keep_one_checkpoint(tmp_path):
    processes.run("tests.checkpoint_test:save_and_damage", str(tmp_path))
    state = example(1)
    restored, step = Checkpoints(tmp_path, read_only=True).restore(abstract(state))  # one process
    assert step == 1
    assert_same_bits(restored, state)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "damaged-2-1"]


def save_and_damage(workdir):
    """In each process: the newer of two checkpoints is damaged, and the older one restored."""
    states = {step: example(step) for step in (1, 2)}
    place = place_on(make_mesh())

    def globally(state):
        return jax.tree.map(
            lambda leaf: jax.make_array_from_callback(
                leaf.shape, place(leaf), lambda index: np.asarray(leaf)[index]
            ),
            state,
        )

    checkpoint.prepare(workdir, CONFIG)
    with Checkpoints(workdir, config=CONFIG) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, globally(state))
        checkpoints.wait()
        if jax.process_index() == 0:
            os.truncate(data_files(pathlib.Path(workdir) / "checkpoints" / "2")[0], 100)
        with pytest.warns(UserWarning, match="2 is damaged: .* has 100 bytes"):
            restored, step = checkpoints.restore(abstract(states[1], place))
    assert step == 1
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(states[1])):
        for shard in a.addressable_shards:
            assert np.asarray(shard.data).tobytes() == np.asarray(b)[shard.index].tobytes()
