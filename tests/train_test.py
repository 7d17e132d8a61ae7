"""A whole run of the smallest BigGAN: what it leaves behind, and that stopping costs nothing."""

import importlib

import jax
import numpy as np
import pytest

from ganjax import checkpoint, generate
from ganjax.logs import read_metrics
from ganjax.train import train

configs = importlib.import_module("configs.biggan")
STEPS = 4
PER_STEP = 16


def tiny(steps=STEPS):
    config = configs.tiny()
    config.train.images = steps * PER_STEP
    config.mesh.data = 1  # of the eight virtual devices
    config.mesh.expert = 8
    config.log.update(scalars_every_images=PER_STEP, grid_rows=2)
    config.checkpoint.every_images = PER_STEP
    return config.lock()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of an uninterrupted run."""
    return train(tiny(), tmp_path_factory.mktemp("whole"))


def leaves(workdir):
    """Every array of the newest checkpoint, as it was stored."""
    model = generate.load(workdir)
    wanted = model.family.abstract_state()
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        state, step = checkpoints.restore(wanted)
    return step, jax.tree_util.tree_leaves_with_path(state)


def test_a_run_leaves_numbers_pictures_and_checkpoints(finished):
    lines = read_metrics(finished)
    assert [line["images"] for line in lines] == [16, 32, 48, 64]
    assert all(np.isfinite(line["d/main/loss"]) for line in lines)
    assert (finished / "samples" / "grid-000000064.png").is_file()
    assert checkpoint.steps(finished)[-1] == STEPS


def test_run_again_says_that_it_is_done(finished, capfd):
    train(tiny(), finished)
    assert "is done: 64 of 64 images" in capfd.readouterr().err
    assert checkpoint.steps(finished)[-1] == STEPS


def test_a_stopped_run_ends_bit_equal(finished, tmp_path):
    train(tiny(steps=2), tmp_path)
    assert checkpoint.steps(tmp_path)[-1] == 2
    train(tiny(), tmp_path)
    (step, got), (_, wanted) = leaves(tmp_path), leaves(finished)
    assert step == STEPS
    for (path, one), (_, other) in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=jax.tree_util.keystr(path))


def test_a_sample_depends_on_its_number_alone(finished):
    model = generate.load(finished)
    images = model.sample(12, seed=3, classes=(1, 2), truncation=0.5)
    assert images.shape == (12, 32, 32, 1) and images.dtype == np.uint8
    np.testing.assert_array_equal(
        images[:5], model.sample(5, seed=3, classes=(1, 2), truncation=0.5)
    )
    assert (images != model.sample(12, seed=4, classes=(1, 2), truncation=0.5)).any()


def test_a_batch_that_does_not_divide_is_an_error_before_anything_is_compiled(tmp_path):
    config = tiny().copy_and_resolve_references().unlock()
    config.train.batch = 12
    with pytest.raises(ValueError, match="12.*multiple of 8"):
        train(config, tmp_path)
