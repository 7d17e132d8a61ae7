"""A whole run, as small as can be: what it leaves behind, and that stopping costs nothing.

What holds for a run of any family is tested for all, the rest with BigGAN.
"""

import functools

import jax
import numpy as np
import pytest

from ganjax import checkpoint, evaluate, generate
from ganjax.family import build
from ganjax.logs import read_metrics
from ganjax.metrics.watch import CollapseError
from ganjax.parallel.mesh import make_mesh
from ganjax.train import train
from tests import configs

pytestmark = pytest.mark.slow

STEPS = 4
PER_STEP = 16  # images of BigGAN


def tiny(steps=STEPS, name="biggan"):
    config = configs.module(name).tiny()
    per_step = config.train.batch * config.train.get("d_steps", 1)
    config.train.images = steps * per_step
    config.mesh.data = 1  # of the eight virtual devices
    config.mesh.expert = 8
    config.log.update(scalars_every_images=per_step, grid_rows=2)
    config.checkpoint.every_images = per_step
    return config.lock()


def play(config, workdir):
    """Trains: BigGAN on eight devices, other families on one, whose programs compile sooner.

    All are compared on one and on eight by tests/devices_test.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        if config.family != "ganjax.families.biggan":
            one = make_mesh({"data": 1}, jax.devices()[:1])
            patch.setattr("ganjax.train.make_mesh", lambda sizes: one)
        return train(config, workdir)


@pytest.fixture(scope="module")
def finished_of(tmp_path_factory):
    """The workdir of an uninterrupted run of a family."""
    return functools.cache(
        lambda name: play(tiny(name=name), tmp_path_factory.mktemp(f"whole-{name}"))
    )


@pytest.fixture(scope="module")
def finished(finished_of):
    return finished_of("biggan")


def leaves(workdir):
    """Every array of the newest checkpoint, as it was stored."""
    model = generate.load(workdir)
    wanted = model.family.abstract_state()
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        state, step = checkpoints.restore(wanted)
    return step, jax.tree_util.tree_leaves_with_path(state)


@configs.every_family
def test_a_run_leaves_numbers_pictures_and_checkpoints(name, finished_of):
    config, finished = tiny(name=name), finished_of(name)
    lines, per_step = read_metrics(finished), config.train.images // STEPS
    assert [line["images"] for line in lines] == [per_step * (i + 1) for i in range(STEPS)]
    phases = {phase.name for phase in build(config, "cpu").phases}
    played = {name for line in lines for name in line if name.endswith("/loss")}
    assert played == {f"{phase}/loss" for phase in phases}  # each at least once
    assert all(np.isfinite([line[loss] for loss in played & line.keys()]).all() for line in lines)
    assert (finished / "samples" / f"grid-{config.train.images:09d}.png").is_file()
    assert checkpoint.steps(finished)[-1] == STEPS


def test_run_again_says_that_it_is_done(finished, capfd):
    train(tiny(), finished)
    assert "is done: 64 of 64 images" in capfd.readouterr().err
    assert checkpoint.steps(finished)[-1] == STEPS


@configs.every_family
def test_a_stopped_run_ends_bit_equal(name, finished_of, tmp_path):
    play(tiny(steps=2, name=name), tmp_path)
    assert checkpoint.steps(tmp_path)[-1] == 2
    play(tiny(name=name), tmp_path)
    (step, got), (_, wanted) = leaves(tmp_path), leaves(finished_of(name))
    assert step == STEPS
    for (path, one), (_, other) in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.g_lr": 1e30}, "At 32 images players/d/params/.* has .* NaN"),
        (
            {"watch.every_images": 16, "watch.min_diversity": 100.0, "watch.patience": 2},
            "Collapse at 32 images: samples differ",
        ),
    ],
)
def test_a_collapse_stops_the_run_and_keeps_what_was_before(changes, message, tmp_path):
    config = tiny()
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(CollapseError, match=f"{message}.* Checkpoints from before stay in .*: 1. "):
        train(config, tmp_path)
    assert checkpoint.steps(tmp_path) == [1]
    assert [line["images"] for line in read_metrics(tmp_path)] == [16, 32]


def test_a_measured_checkpoint_is_kept_if_it_is_the_best(tmp_path, monkeypatch):
    values = iter((5.0, 3.0, 4.0, 6.0))
    monkeypatch.setattr(evaluate, "Evaluation", lambda *_, **__: lambda model: record(next(values)))
    config = tiny()
    config.evaluate.every_images = PER_STEP
    config.checkpoint.keep = 1
    train(config, tmp_path)
    assert checkpoint.steps(tmp_path) == [2, 4]
    assert generate.load(tmp_path, "best").step == 2 and generate.load(tmp_path).step == 4
    assert [line["fd_digits"] for line in read_metrics(tmp_path)] == [5.0, 3.0, 4.0, 6.0]


def test_no_best_without_measurements(finished):
    with pytest.raises(checkpoint.CheckpointError, match=r"No checkpoint in .* was measured"):
        generate.load(finished, "best")


def record(value):
    return {
        "metrics": {"fd_digits": value},
        "references": {"fd_digits": {"real_real": 1.0}},
        "spread": {},
        "protocols": {"fd_digits": {"measure": "frechet", "fakes": 2}},
        "real": {"fd_digits": 2},
        "step": 0,
        "seed": 0,
        "seconds": 0.0,
        "device": "none",
    }


def test_a_sample_depends_on_its_number_alone(finished):
    model = generate.load(finished)
    images = model.sample(12, seed=3, classes=(1, 2), truncation=0.5)
    assert images.shape == (12, 32, 32, 1) and images.dtype == np.uint8
    np.testing.assert_array_equal(
        images[:5], model.sample(5, seed=3, classes=(1, 2), truncation=0.5)
    )
    assert (images != model.sample(12, seed=4, classes=(1, 2), truncation=0.5)).any()
    with pytest.raises(ValueError, match="-2 images; set n"):
        model.sample(-2)


def test_a_batch_that_does_not_divide_is_an_error_before_anything_is_compiled(tmp_path):
    config = tiny().copy_and_resolve_references().unlock()
    config.train.batch = 12
    with pytest.raises(ValueError, match="12.*multiple of 8"):
        train(config, tmp_path)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("train.images", 0, "config.train.images=0: .* at least 1"),
        ("train.d_steps", 0, "train.d_steps=0; set it to 1 or more"),
        ("train.g_microbatches", 0, "train.g_microbatches=0; set it to 1 or more"),
        ("optimizer.g_lr", -1.0, "learning rate of -1"),
        ("optimizer.g_lr", float("nan"), "learning rate of nan"),
        ("optimizer.b1", 1.0, "b1=1, "),
        ("ema.decay", 2.0, "decay 2; set"),
        ("log.grid_rows", 0, "A sheet of 0 rows; set"),
    ],
)
def test_a_value_that_cannot_be_is_an_error_before_anything_is_compiled(
    name, value, message, tmp_path
):
    config = tiny().copy_and_resolve_references().unlock()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path)
