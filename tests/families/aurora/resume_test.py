"""A run goes on with its experts spread over more devices than before, and computes the same."""

import dataclasses
import re

import jax
import numpy as np
import optax

from configs import aurora as config_file
from ganjax import checkpoint
from ganjax.family import build
from ganjax.parallel.mesh import make_mesh
from ganjax.program import assemble

EXPERTS, BATCH = 8, 8
QUICKLY = {"xla_backend_optimization_level": 0}
PLAYED = ("g/main",)  # it has all experts and the router's losses


def config():
    """A network of 4x4, all of whose tokens find room, wherever they are."""
    found = config_file.tiny()
    found.data.resolution = 4
    found.model.update(
        blocks=(1,),
        kernels=(1,),
        experts=(EXPERTS,),
        attention=(1,),
        execution=("parallel",),
        capacity_factor=float(EXPERTS),
        transformed=4,
    )
    found.loss.clip = 0.0
    found.data.embedded = True  # no text tower to compile
    found.grow.update(stages=(4,), most_images=0)
    found.train.batch = BATCH
    return found


def batch(number):
    rng = np.random.default_rng(number)
    return {
        "real": {
            "image": rng.integers(0, 256, (1, 1, BATCH, 4, 4, 3), np.uint8),
            "tokens": rng.integers(1, 20, (1, 1, BATCH, 20), np.int32),
            "text_states": rng.standard_normal((1, 1, BATCH, 20, 64)).astype(np.float16),
        }
    }


def noise(shape):
    """In place of CLIP's weights."""
    return np.random.default_rng(0).normal(0, 0.1, shape.shape).astype(shape.dtype)


def test_experts_move_to_other_devices_between_checkpoints(tmp_path):
    made = build(config(), "cpu")
    # Adam divides by the gradient's size, which makes rounding's sign a step.
    made = dataclasses.replace(made, optimizers={p: optax.sgd(0.1) for p in made.networks})
    alone = assemble(made, make_mesh({"data": 1}, jax.devices()[:1]))
    apart = assemble(made, make_mesh({"data": 1, "expert": EXPERTS}))
    compiled = {}

    def step(program, state, number):
        """The state after one more batch; all tokens found room."""
        at = jax.tree.map(lambda leaf: leaf.sharding, program.batches)
        given = (
            jax.device_put(batch(number), at),
            jax.device_put(jax.random.key(0), program.key.sharding),
            program.place_frozen(jax.tree.map(noise, program.frozen)),
        )
        if id(program) not in compiled:
            compiled[id(program)] = program.lower(PLAYED).compile(QUICKLY)
        state, metrics = compiled[id(program)](state, *given)
        assert metrics["g/main/experts_4_dropped"] == 0
        return state

    def split(state):
        stack = state.players["g"].params["synthesis"]["net_1"]["attn_blocks_0"]["ff"]["value"]
        return EXPERTS // stack.sharding.shard_shape(stack.shape)[0]

    with checkpoint.Checkpoints(tmp_path) as kept:
        state = step(alone, alone.place(made.init(jax.random.key(0))), 0)
        kept.save(1, state, {})
        kept.wait()
        wanted = jax.device_get(step(alone, state, 1))
        moved, _ = kept.restore(apart.state)
        assert (split(state), split(moved)) == (1, EXPERTS)
        moved = step(apart, moved, 1)
        kept.save(2, moved, {})
        kept.wait()
        back, _ = kept.restore(alone.state)
    assert split(back) == 1
    start = jax.device_get(made.init(jax.random.key(0)))
    for (path, one), other, first in zip(
        jax.tree.leaves_with_path(jax.device_get(back)),
        jax.tree.leaves(wanted),
        jax.tree.leaves(start),
        strict=True,
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=name)
        if re.search("g/params/.*/ff/(value|out)$", name):
            assert (other != first).any(axis=(1, 2)).sum() > 1, "several experts learned"
