"""Features over two processes."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.parallel import mesh
from ganjax.pretrained import clip
from ganjax.pretrained.blocks import shapes_of
from tests.processes import run

TINY = clip.kind(
    clip.Clip(
        image=clip.ImageTower(width=8, layers=1, heads=2, embedding=4, patch=4, size=8),
        text=clip.TextTower(width=8, layers=1, heads=2, embedding=4, vocabulary=20, context=7),
    )
)
IMAGES = np.random.default_rng(1).integers(0, 256, (8, 10, 14, 3), np.uint8)


def tiny():
    rng = np.random.default_rng(0)
    shapes = shapes_of(TINY.module, *TINY.examples)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape), shapes)
    return clip.ClipNetwork("tiny", TINY, jax.tree.map(jnp.float32, variables))


def features_of_a_process():
    """Prints this process's rows of the features of images split over all devices."""
    devices = mesh.make_mesh({"data": jax.device_count()})
    split = mesh.batch_sharding(devices, leading=0)
    network = tiny().placed(mesh.replicated(devices))
    images = jax.make_array_from_callback(IMAGES.shape, split, lambda index: IMAGES[index])
    found = network(images, ["embedding"])["embedding"]
    rows = {
        shard.index[0].start: np.asarray(shard.data).tolist() for shard in found.addressable_shards
    }
    print(json.dumps(rows), flush=True)


def test_two_processes_give_the_features_of_one():
    said = run("tests.pretrained.processes_test:features_of_a_process")
    parts = {}
    for text in said:
        parts |= json.loads(text.strip().splitlines()[-1])
    rows = np.concatenate([parts[key] for key in sorted(parts, key=int)])
    np.testing.assert_allclose(rows, tiny()(IMAGES)["embedding"], rtol=1e-5, atol=1e-6)
    assert len(parts) == 4
