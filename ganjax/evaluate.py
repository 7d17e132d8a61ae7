"""Measure a run: ``--mode=evaluate``, or `evaluate` from Python.

``class_accuracy`` is the share of samples that a classifier of the real images puts in the class
that they were asked for; ``fd_<source>`` is the Frechet distance between the features that it
sees in samples and in real images. Both look at the averaged generator, without truncation.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from ml_collections import ConfigDict

import ganjax
from ganjax import config as configs
from ganjax import generate
from ganjax.data.sources import BUILT_IN, Options, Source, open_source, read_options
from ganjax.data.transforms import Transform
from ganjax.metrics.classifier import Classifier, train_classifier
from ganjax.metrics.frechet import Moments, distance

EVALUATIONS = "evaluations.jsonl"
CLASS_ACCURACY = "class_accuracy"
REALS = 10_000  # real images looked at, of a set that has more


def metric_names(source: str) -> tuple[str, ...]:
    """The metrics of runs on a source, the first of which ranks; none where nothing fits it yet."""
    return (f"fd_{source}", CLASS_ACCURACY) if source in BUILT_IN else ()


def rank(record: dict[str, Any]) -> float:
    """How a record's first metric ranks its model; less is better."""
    name, value = next(iter(record["metrics"].items()))
    return value * _MEASURES[name.partition("_")[0]].sign


def check_metrics(metrics: Sequence[str], source: str) -> tuple[str, ...]:
    """The metrics asked for on a source; all of them if none is named.

    Raises:
      ValueError: a metric that is none or does not fit the source.
    """
    known = metric_names(source)
    everywhere = dict.fromkeys(name for other in BUILT_IN for name in metric_names(other))
    if not known:
        raise ValueError(
            f"config.data.source={source!r} has no metrics yet; there are "
            f"{', '.join(everywhere)}, for runs on {' and '.join(BUILT_IN)}."
        )
    for name in metrics:
        if name not in everywhere:
            raise configs.ConfigError(
                f"There is no metric {name!r}{configs.did_you_mean(name, known)} "
                f"Runs on {source} have: {', '.join(known)}."
            )
        if name not in known:
            raise configs.ConfigError(
                f"{name!r} is not for runs on {source}; these have: {', '.join(known)}."
            )
    return tuple(dict.fromkeys(metrics)) or known


def evaluate(
    workdir: str | pathlib.Path,
    metrics: Sequence[str] = (),
    step: int | Literal["best"] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures a checkpoint, prints a table and adds a line to ``evaluations.jsonl``.

    Args:
      workdir: of the run.
      metrics: names of `metric_names`; empty for all of them.
      step: of a checkpoint, or ``"best"``; the newest without it.
      samples: how many are drawn; classes are gone round evenly.
      seed: of the samples, and of the classifier and the choice of real images.

    Returns:
      The line, see `Evaluation`.

    Raises:
      ValueError: a metric that is none or does not fit the run's source; too few samples.
      FileNotFoundError: no run there.
      CheckpointError: no checkpoint, or none of that step.
    """
    model = generate.load(workdir, step)
    metrics = check_metrics(metrics, model.config.data.source)
    source = open_source(model.config.data)
    record = Evaluation(model.config, source, metrics, samples, seed)(model)
    keep(record, workdir)
    print(table(record))
    return record


def keep(record: dict[str, Any], workdir: str | pathlib.Path) -> None:
    """Adds a record to the run's ``evaluations.jsonl``."""
    with open(pathlib.Path(workdir) / EVALUATIONS, "a") as file:
        file.write(json.dumps(record) + "\n")


class Evaluation:
    """Measures models of one run, each against the same real images and classifier.

    Args:
      config: the run's.
      source: the run's.
      metrics: names of `metric_names`; empty for all of them.
      samples: how many are drawn; classes are gone round evenly.
      seed: of the samples, and of the classifier and the choice of real images.

    Raises:
      ValueError: a metric that is none or does not fit the run's source; too few samples.
    """

    def __init__(
        self,
        config: ConfigDict,
        source: Source,
        metrics: Sequence[str] = (),
        samples: int = 1000,
        seed: int = 0,
    ):
        if samples < 2:
            raise ValueError(f"samples={samples}: a distance takes at least 2; 1000 is usual.")
        self.metrics = check_metrics(metrics, config.data.source)
        self._options = read_options(config.data)
        self._source, self._samples, self._seed = source, samples, seed

    def __call__(self, model: generate.Model) -> dict[str, Any]:
        """One record.

        Returns:
          Metrics with their values, the references that these are read against (``real_real`` is
          the distance between two disjoint halves of the real images), counts, step, seed,
          versions and seconds.
        """
        began = time.monotonic()
        images, classifier = self._real
        classes = len(self._source.classes)
        fakes = model.sample(self._samples, seed=self._seed, classes=tuple(range(classes)))
        asked = np.arange(self._samples) % classes
        measured = _Measured(classifier, images, fakes, asked, self._seed)
        results = {
            name: _MEASURES[name.partition("_")[0]].measure(measured) for name in self.metrics
        }
        return {
            "time": time.time(),
            "step": model.step,
            "seed": self._seed,
            "metrics": {name: result.value for name, result in results.items()},
            "references": {name: result.reference for name, result in results.items()},
            "counts": {
                "samples": self._samples,
                "real": len(images),
                "held_out": classifier.held_out,
            },
            "source": self._source.fingerprint(),
            "versions": {"jax": jax.__version__, "ganjax": ganjax.__version__},
            "seconds": round(time.monotonic() - began, 2),
        }

    @functools.cached_property
    def _real(self) -> tuple[np.ndarray, Classifier]:
        images, labels = read_real(self._source, self._options, self._seed)
        classes = len(self._source.classes)
        return images, train_classifier(images, labels, classes, self._seed)


def table(record: dict[str, Any]) -> str:
    """A record as aligned text."""
    rows = [("metric", "value", "reference", "")]
    for name, value in record["metrics"].items():
        ((what, reference),) = record["references"][name].items()
        rows.append((name, f"{value:.4g}", f"{reference:.4g}", what))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    ]
    counts = record["counts"]
    lines.append(
        f"step {record['step']}: {counts['samples']} samples, {counts['real']} real images, "
        f"seed {record['seed']}, {record['seconds']:.0f} s"
    )
    return "\n".join(lines)


def read_real(source: Source, options: Options, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Real images as the run sees them, uint8 [n, h, w, c], and their labels, int [n].

    All of them in a shuffled order, or `REALS` of a set that has more.
    """
    transform = Transform(options.resolution, options.channels, options.flip)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(source))[:REALS]
    items = [transform(source[int(index)], rng) for index in chosen]
    images = np.stack([item["image"] for item in items])
    return images, np.array([item["label"] for item in items], np.int32)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What every metric reads."""

    classifier: Classifier
    real: np.ndarray  # uint8 [n, h, w, c], shuffled
    fake: np.ndarray  # uint8 [m, h, w, c]
    asked: np.ndarray  # int [m], the class asked of each sample
    seed: int


@dataclasses.dataclass(frozen=True)
class _Result:
    value: float
    reference: dict[str, float]  # one number by what it is: what real images get


def _class_accuracy(measured: _Measured) -> _Result:
    right = measured.classifier.predict(measured.fake) == measured.asked
    return _Result(float(right.mean()), {"held_out_real": measured.classifier.accuracy})


def _frechet(measured: _Measured) -> _Result:
    real = measured.classifier.features(measured.real)
    fake = measured.classifier.features(measured.fake)
    half = len(real) // 2
    halves = distance(Moments.of(real[:half]), Moments.of(real[half:]))
    return _Result(distance(Moments.of(fake), Moments.of(real)), {"real_real": halves})


@dataclasses.dataclass(frozen=True)
class _Measure:
    measure: Callable[[_Measured], _Result]
    sign: int  # 1 where less is better, else -1


# By the first part of a metric's name.
_MEASURES = {"class": _Measure(_class_accuracy, -1), "fd": _Measure(_frechet, 1)}
