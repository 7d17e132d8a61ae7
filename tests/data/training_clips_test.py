"""A run on clips: the smallest family of videos trains, resumes and is watched."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import biggan
from ganjax.adversarial.phases import Outcome, Phase
from ganjax.adversarial.state import Ema, constant_decay
from ganjax.config import ConfigError
from ganjax.data.clips import read_clip
from ganjax.family import Family, Inputs
from ganjax.layers import initializers
from ganjax.layers.images import to_float
from ganjax.logs import read_metrics
from ganjax.sampling.sheets import Sheet
from ganjax.train import train
from tests.data.clips_on_disk import write_video
from tests.train_test import leaves

SIDE = 8


def dense():
    return nn.Dense(1, kernel_init=initializers.Normal(0.1), bias_init=initializers.zeros)


class Frames(nn.Module):
    """A level for each time."""

    @nn.compact
    def __call__(self, z, times):
        level = nn.tanh(dense()(z)[:, None] + dense()(times[..., None] / 100))
        return jnp.broadcast_to(level[..., None, None], (*times.shape, SIDE, SIDE, 3))


class Score(nn.Module):
    @nn.compact
    def __call__(self, clips, times):
        return dense()(jnp.concatenate([clips.mean((2, 3, 4)), times / 100], axis=1))[:, 0]


def build(config):
    """The family, as a config names it."""
    times = read_clip(config.data.clip or {"times": "sparse"}).times
    generator, discriminator = Frames(), Score()

    def draws(key, indices, request):
        z = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (4,)))(indices)
        return {"z": z, "times": jnp.tile(jnp.arange(float(times.frames)), (len(indices), 1))}

    def sample(variables, draws):
        return generator.apply(variables, draws["z"], draws["times"])

    def draw(key, game):
        keys = jax.random.split(key)
        uniform = jax.random.uniform(keys[0], (game.size, times.draws))
        # Generated clips are as long as real ones, by the same rule.
        chosen = times(uniform, game.batch["length"]).astype(jnp.float32)
        return {"z": jax.random.normal(keys[1], (game.size, 4)), "times": chosen}

    def score(params, clips, times):
        return discriminator.apply({"params": params}, clips, times)

    def d_loss(params, game):
        real = score(params, to_float(game.batch["clip"]), game.batch["times"])
        fake = score(params, sample(game.players["g"], game.draws), game.draws["times"])
        return jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(fake)), Outcome()

    def g_loss(params, game):
        fakes = sample({"params": params}, game.draws)
        fake = score(game.players["d"]["params"], fakes, game.draws["times"])
        return jnp.mean(jax.nn.softplus(-fake)), Outcome()

    def grid(bind, key, request):
        clips = np.asarray(bind(None)(draws(key, jnp.arange(2), request)))
        return Sheet(clips.reshape(-1, *clips.shape[2:]), times.frames)

    abstract = jax.ShapeDtypeStruct
    seen = abstract((1, times.frames), jnp.float32)
    clip = (times.frames, SIDE, SIDE, 3)
    return Family(
        networks={"g": generator, "d": discriminator},
        inputs={
            "g": Inputs((abstract((1, 4), jnp.float32), seen)),
            "d": Inputs((abstract((1, *clip), jnp.float32), seen)),
        },
        phases=(
            Phase("d/main", "d", d_loss, size=16, draw=draw, batch="real"),
            Phase("g/main", "g", g_loss, size=16, draw=draw, batch="real"),
        ),
        optimizers={"g": optax.sgd(0.1), "d": optax.sgd(0.1)},
        ema=Ema(constant_decay(0.5)),
        item={
            "clip": abstract(clip, np.uint8),
            "times": abstract((times.frames,), np.float32),
            "length": abstract((), np.int32),
        },
        draws=draws,
        sample=sample,
        sheets={"grid": grid},
    )


def config(steps, **data):
    config = biggan.tiny()
    config.family = __name__
    config.data.update(
        {"source": "shapes", "resolution": SIDE, "channels": 3, "classes": 10}
        | {"clip": {"times": "sparse", "frames": 3, "max_frames": 64}}
        | data
    )
    config.train.images = 16 * steps
    config.mesh.data, config.mesh.expert = 1, 8
    config.log.update(scalars_every_images=16, grid_rows=2)
    config.evaluate.every_images = 0
    return config.lock()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(5):
        levels = np.linspace(20 * number, 200, 40 + number).astype(int)
        write_video(folder / f"{number}.mp4", levels)
    write_video(folder / "short.mp4", [3, 4])
    return folder


@pytest.mark.slow
def test_a_run_on_files_resumes_bit_equal_and_names_what_is_short(folder, tmp_path):
    data = {"source": "folder", "path": str(folder), "classes": 0}
    train(config(3, **data), tmp_path / "whole")
    train(config(1, **data), tmp_path / "parts")
    train(config(3, **data), tmp_path / "parts")
    whole, parts = leaves(tmp_path / "whole"), leaves(tmp_path / "parts")
    assert whole[0] == parts[0] == 3
    for (path, one), (_, other) in zip(parts[1], whole[1], strict=True):
        np.testing.assert_array_equal(one, other, err_msg=jax.tree_util.keystr(path))
    lines = read_metrics(tmp_path / "whole")
    assert [line["images"] for line in lines] == [16, 32, 48]
    assert lines[-1]["images_skipped"] == 1 and lines[-1]["d/main/loss"] < lines[0]["d/main/loss"]


def test_built_in_videos_are_watched(tmp_path):
    train(config(1, flip=True), tmp_path)
    (line,) = read_metrics(tmp_path)
    assert 0 < line["diversity"] < 10
    assert (tmp_path / "samples" / "grid-000000016.png").is_file()


def test_a_family_of_videos_needs_clips(tmp_path):
    with pytest.raises(ConfigError, match=r"trains on clip and .*gives images.*config.data.clip"):
        settings = config(1).copy_and_resolve_references().unlock()
        settings.data.clip = None
        train(settings.lock(), tmp_path / "run")
