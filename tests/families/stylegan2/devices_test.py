"""One device and eight play the same turns of D, augmented by a p that moves (x64, plain SGD)."""

import dataclasses
import importlib

import jax
import numpy as np
import optax
import pytest

from configs.stylegan2 import tiny
from ganjax.parallel.mesh import make_mesh
from ganjax.program import assemble
from tests.devices_test import named, widen

STEPS = 2
TOLERANCE = 1e-9  # of the largest value of an array


def train(mesh):
    """The state after some steps of D's two phases."""
    config = tiny()
    config.data.resolution = 8
    config.model.update(d_channel_base=32, g_channel_base=32, channel_max=4)
    config.augment.update(mode="ada", pipe="bgc", p=0.7, every=2, ramp_images=100)
    config.precision = "float64"
    family = importlib.import_module(config.family).build(config)
    family = dataclasses.replace(family, optimizers={p: optax.sgd(0.1) for p in family.networks})
    program = assemble(family, mesh)
    state = program.place(jax.tree.map(widen, family.init(jax.random.key(0))))
    numbers = np.random.default_rng(0)
    real = program.batches["real"]
    for _ in range(STEPS):
        batch = {
            # Not bytes, which the step would turn into float32.
            "image": numbers.uniform(-1, 1, real["image"].shape),
            "label": numbers.integers(0, 10, real["label"].shape, np.int32),
        }
        batch = {name: jax.device_put(batch[name], real[name].sharding) for name in batch}
        state, _ = program.step(state, {"real": batch}, jax.random.key(0), due=("d/main", "d/r1"))
    return named(state)


@pytest.mark.slow
def test_devices_change_nothing():
    with jax.enable_x64(True):
        one = train(make_mesh({"data": 1}, jax.devices()[:1]))
        eight = train(make_mesh())
    # A step of batch x every / ramp_images, up or down.
    assert abs(float(one["extras/ada_p"]) - 0.7) == pytest.approx(0.16, rel=1e-5)
    assert one["extras/ada_reals"] == 0
    for name, array in one.items():
        scale = max(np.abs(array).max(), 1e-6)
        assert np.abs(array - eight[name]).max() <= TOLERANCE * scale, name
