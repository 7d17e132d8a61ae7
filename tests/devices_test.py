"""One device, eight with FSDP and two processes of four compute the same run of a family.

With plain SGD and in float64.
"""

import dataclasses
import importlib

import jax
import numpy as np
import optax
import pytest

from ganjax.data.pipeline import Stream
from ganjax.data.sources import make_transform, open_source, read_options
from ganjax.parallel.mesh import batch_sharding, make_mesh
from ganjax.parallel.rules import Rule, fsdp
from ganjax.program import assemble
from tests import configs, processes

STEPS = 3
TOLERANCE = 1e-9  # of the largest value of an array; Adam with b1=0 would blow up sign noise


@pytest.fixture(scope="module", params=configs.FAMILIES)
def runs(request, tmp_path_factory):
    """Folder of the final states of each layout of a family."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_ENABLE_X64", "1")
        here = "tests.devices_test"
        processes.run(f"{here}:one_process", name, str(folder), processes=1, devices=8, timeout=600)
        processes.run(f"{here}:two_processes", name, str(folder), devices=4, timeout=600)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["fsdp", "two_processes"])
def test_a_layout_changes_nothing(runs, layout):
    with np.load(runs / "one.npz") as one, np.load(runs / f"{layout}.npz") as other:
        assert set(one.files) == set(other.files)
        for name in one.files:
            scale = max(np.abs(one[name]).max(), 1e-6)
            assert np.abs(one[name] - other[name]).max() <= TOLERANCE * scale, name


@pytest.mark.slow
def test_the_run_moves_every_parameter(runs):
    with np.load(runs / "start.npz") as start, np.load(runs / "one.npz") as end:
        names = [name for name in end.files if "/params/" in name and name.startswith("players")]
        still = [name for name in names if (start[name] == end[name]).all()]
        assert names and not still
        assert all(end[name].dtype == np.float64 for name in names)


def one_process(name, folder):
    """In a process of eight devices."""
    save(name, folder, "one", make_mesh({"data": 1}, jax.devices()[:1]), start=True)
    save(name, folder, "fsdp", make_mesh({"data": 2, "fsdp": 4}))


def two_processes(name, folder):
    """In each of two processes of four devices."""
    assert jax.process_count() == 2 and len(jax.local_devices()) == 4 and len(jax.devices()) == 8
    save(name, folder, "two_processes", make_mesh())


def save(name, folder, layout, mesh, start=False):
    """Train, playing all phases at each step, and keep the state as a .npz."""
    config = configs.module(name).tiny()
    config.precision = "float64"
    family = importlib.import_module(config.family).build(config)
    family = dataclasses.replace(family, optimizers={p: optax.sgd(0.1) for p in family.networks})
    if "fsdp" in mesh.shape:  # so small a network that nothing would be split
        family = dataclasses.replace(family, rules=(Rule("", fsdp(min_size=64)),))
    program = assemble(family, mesh)
    state = jax.tree.map(widen, family.init(jax.random.key(0)))
    if start:
        np.savez(f"{folder}/start.npz", **named(state))
    state = program.place(state)
    split = [leaf for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]
    assert bool(split) == ("fsdp" in mesh.shape)
    options = read_options(config.data)
    stream = Stream(
        open_source(config.data),
        make_transform(options),
        shape=jax.tree.leaves(program.batches["real"])[0].shape[:3],
        seed=0,
        sharding=batch_sharding(mesh),
        threads=0,
        prefetch=1,
    )
    stage = len(family.growth.resolutions) - 1 if family.growth else 0  # has all that grew
    names = tuple(phase.name for phase in family.phases if phase.plays_in(stage))
    frozen = program.place_frozen(jax.tree.map(widen, family.load_frozen()))
    for _ in range(STEPS):
        drawn = next(stream)
        batch = {field: drawn[field] for field in family.item}
        state, _ = program.step(state, {"real": batch}, jax.random.key(0), frozen, due=names)
    stream.close()
    final = named(state)
    if jax.process_index() == 0:
        np.savez(f"{folder}/{layout}.npz", **final)


def widen(leaf):
    leaf = np.asarray(leaf)
    return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf


def named(state):
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
