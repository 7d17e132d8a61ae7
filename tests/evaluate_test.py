"""Evaluating a run: the numbers mean what they say, the record is kept, mistakes are named."""

import json

import jax
import numpy as np
import pytest

import ganjax
from configs import biggan
from ganjax import checkpoint, family
from ganjax import evaluate as evaluation
from ganjax.config import ConfigError
from ganjax.data.sources import open_source, read_options
from ganjax.evaluate import evaluate, read_real
from ganjax.metrics.classifier import train_classifier


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = biggan.tiny()
    config.data.channels = 1
    config.sample.standing = 1
    workdir = checkpoint.prepare(tmp_path_factory.mktemp("run"), config)
    state = family.build(config, "cpu").init(jax.random.key(0))
    with checkpoint.Checkpoints(workdir, config=config) as checkpoints:
        checkpoints.save(3, jax.device_put(state))
        checkpoints.wait()
    return workdir


@pytest.fixture(scope="module", autouse=True)
def one_short_training():
    """The classifier of a test is of 200 steps, and made once."""
    made = {}

    def short(images, labels, classes, seed):
        if seed not in made:
            made[seed] = train_classifier(images, labels, classes, seed, steps=200)
        return made[seed]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "train_classifier", short)
        yield


class Stub(evaluation.generate.Model):
    """A model whose samples are real images of the classes asked, or of the next ones."""

    def __init__(self, config, off: int):
        self.config, self.step, self.off = config, 7, off

    def sample(self, n, *, seed, classes):
        images, labels = read_real(
            open_source(self.config.data), read_options(self.config.data), seed + 1
        )
        of_class = [images[labels == (label + self.off) % 10] for label in classes]
        return np.stack([of_class[i % len(classes)][i // len(classes)] for i in range(n)])


def test_a_run_is_measured_and_the_record_kept(run, capsys):
    record = evaluate(run, ["class_accuracy", "fd_digits"], samples=40)
    again = evaluate(run, samples=40)  # all metrics
    assert record["metrics"] == again["metrics"]
    lines = (run / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record, again]
    assert record["step"] == 3 and record["seed"] == 0
    assert record["counts"] == {"samples": 40, "real": 1797, "held_out": 359}
    assert record["versions"] == {"jax": jax.__version__, "ganjax": ganjax.__version__}
    # Nothing was learnt: chance, and far from real.
    assert record["metrics"]["class_accuracy"] < 0.4
    assert record["metrics"]["fd_digits"] > 10 * record["references"]["fd_digits"]["real_real"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("fd_digits") or printed[1].startswith("class_accuracy")
    assert printed[0].index("reference") + 9 == printed[1].index("held_out_real") - 2


@pytest.mark.parametrize(("off", "low", "high"), [(0, 0.9, 1.0), (1, 0.0, 0.1)])
def test_real_images_score_as_real_and_wrong_classes_as_wrong(
    off, low, high, run, tmp_path, monkeypatch
):
    config = evaluation.generate.load(run).config
    monkeypatch.setattr(evaluation.generate, "load", lambda workdir, step: Stub(config, off))
    record = evaluate(tmp_path, samples=800)
    assert low <= record["metrics"]["class_accuracy"] <= high
    # The right images, whatever was asked of them.
    assert record["metrics"]["fd_digits"] < 2 * record["references"]["fd_digits"]["real_real"]


def test_mistakes_are_named(run, monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'fd_digits'"):
        evaluate(run, ["fd_digit"])
    with pytest.raises(ConfigError, match="not for runs on digits"):
        evaluate(run, ["fd_shapes"])
    with pytest.raises(ValueError, match="at least 2"):
        evaluate(run, samples=1)
    config = biggan.tiny()
    config.data.source = "folder"
    monkeypatch.setattr(evaluation.generate, "load", lambda workdir, step: Stub(config, 0))
    with pytest.raises(ValueError, match="no metrics yet; there are fd_digits, class_accuracy"):
        evaluate(run)
