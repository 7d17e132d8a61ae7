import os
import pathlib

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ganjax.parallel import mesh as meshes
from ganjax.parallel.mesh import batch_sharding, batch_spec, check_batch, make_mesh

VARIABLES = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "SLURM_STEP_NUM_TASKS",
    "OMPI_COMM_WORLD_SIZE",
)


# Meshes.


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (None, {"data": 8, "expert": 1}),
        ({"data": -1, "expert": 1, "fsdp": 1}, {"data": 8, "expert": 1}),
        ({"data": -1, "expert": 4}, {"data": 2, "expert": 4}),
        ({"expert": -1}, {"data": 1, "expert": 8}),
        ({"fsdp": 2, "data": -1}, {"data": 4, "expert": 1, "fsdp": 2}),
        ({"data": 2, "expert": 2, "fsdp": 2}, {"data": 2, "expert": 2, "fsdp": 2}),
    ],
)
def test_the_mesh_has_the_sizes_asked_for(sizes, shape):
    mesh = make_mesh(sizes)
    assert dict(mesh.shape) == shape
    assert list(mesh.shape) == list(shape)  # in one order, whatever that of the config
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert sorted(d.id for d in mesh.devices.flat) == list(range(8))


def test_programs_of_several_cpu_devices_are_kept_by_no_cache():
    def compiled(mesh, name):
        def step(x):
            return x.sum() + os.getpid()  # not what an earlier run has kept

        step.__name__ = name
        placed = jax.ShapeDtypeStruct((8,), np.float32, sharding=NamedSharding(mesh, P("data")))
        jax.jit(step).lower(placed).compile()
        folder = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
        return len(list(folder.glob(f"jit_{name}-*")))

    one = make_mesh(None, jax.devices()[:1])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    assert compiled(one, f"one_{os.getpid()}") > 0
    assert compiled(make_mesh(), f"eight_{os.getpid()}") == 0


def test_a_mesh_of_some_devices():
    assert dict(make_mesh(devices=jax.devices()[:3]).shape) == {"data": 3, "expert": 1}


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"data": 3}, r"'data': 3.* multiplies to 3, but there are 8 devices\. Set one of config"),
        ({"data": -1, "expert": 3}, "multiplies to 3, but there are 8"),
        ({"data": 4}, "multiplies to 4, but there are 8"),
        ({"data": -1, "expert": -1}, "for one axis at most"),
        ({"data": 0}, "positive sizes are wanted"),
        ({"batch": -1}, "no axis 'batch'; the axes are data, expert, fsdp"),
    ],
)
def test_sizes_that_do_not_fit(sizes, words):
    with pytest.raises(ValueError, match=words):
        make_mesh(sizes)


@pytest.mark.tpu_compiler
def test_the_mesh_of_a_topology():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc("v5e:4x4", platform="tpu").devices
    for sizes in ({"data": -1}, {"data": -1, "expert": 4}, {"data": -1, "expert": 2, "fsdp": 2}):
        mesh = make_mesh(sizes, devices)
        assert mesh.size == 16 and set(mesh.devices.flat) == set(devices)


# Batches.


def test_a_batch_lies_over_every_axis():
    mesh = make_mesh({"data": -1, "expert": 2, "fsdp": 2})
    assert batch_spec(mesh) == P(None, None, ("data", "expert", "fsdp"))
    assert batch_spec(mesh, leading=0) == P(("data", "expert", "fsdp"))
    batch = jax.device_put(np.zeros((2, 1, 16, 3)), batch_sharding(mesh))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 1, 2, 3)}
    assert len({shard.index[2].start for shard in batch.addressable_shards}) == 8


def test_replicated():
    placed = jax.device_put(np.zeros((3, 2)), meshes.replicated(make_mesh()))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(3, 2)}
    assert isinstance(placed.sharding, NamedSharding) and len(placed.addressable_shards) == 8


@pytest.mark.parametrize(
    ("batch", "words"),
    [(12, "8 or 16"), (4, r"e\.g\. 8\."), (0, r"e\.g\. 8\."), (-8, r"e\.g\. 8\.")],
)
def test_a_batch_that_does_not_divide(batch, words):
    with pytest.raises(ValueError, match=rf"config.train.batch is {batch}, .* 8 devices.*{words}"):
        check_batch(batch, make_mesh(), "config.train.batch")
    check_batch(16, make_mesh())


# Several hosts.


@pytest.fixture
def started(monkeypatch):
    """What jax.distributed.initialize was called with, in an environment without clusters."""
    calls = []
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    return calls


def test_one_process_needs_no_network(started):
    meshes.start()
    meshes.start("localhost:1234", 1, 0)
    assert started == []


def test_a_second_start_does_nothing(started, monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    meshes.start("localhost:1234", 2, 0)
    assert started == []


def test_the_environment_names_the_hosts(started, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    meshes.start()
    meshes.start(process=2)
    assert [args for args, _ in started] == [("host:1234", 4, 3), ("host:1234", 4, 2)]


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_cluster_is_left_to_jax(started, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    meshes.start()
    assert started == []
    monkeypatch.setenv(name, "2")
    meshes.start()
    assert started == [((None, None, None), {})]


def test_a_tpu_slice_is_left_to_jax(started, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(meshes.environment, "has_tpu", lambda: True)
    meshes.start()
    assert started == [((), {})]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    meshes.start()
    assert len(started) == 1


def test_a_tpu_without_a_slice_is_one_process(started, monkeypatch):
    def refuse():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(meshes.environment, "has_tpu", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    meshes.start()


def test_half_of_what_is_needed(started, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    with pytest.raises(ValueError, match="but processes, process is not known"):
        meshes.start()
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES is 'two'"):
        meshes.start()
