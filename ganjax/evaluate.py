"""Measure a run, or two folders of pictures: ``--mode=evaluate``, or from Python.

A metric's name stands for its whole protocol (`metrics.protocols`). Real pictures and samples are
each passed over once, for all metrics together; what real pictures gave is kept for the next time.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from ml_collections import ConfigDict

import ganjax
from ganjax import config as configs
from ganjax import generate, subjects
from ganjax.data.sources import BUILT_IN, Source, open_source, read_options
from ganjax.metrics import protocols
from ganjax.metrics.cache import cached
from ganjax.metrics.classifier import train_classifier
from ganjax.metrics.collect import Collected, Halves, Networks, Want, collect
from ganjax.metrics.features import BATCH
from ganjax.metrics.hosts import of_first, share
from ganjax.metrics.measures import MEASURES, Measured, Result
from ganjax.metrics.protocols import CLASSIFIER, Protocol
from ganjax.pretrained import catalog, weights
from ganjax.subjects import Finite, Frames, Pictures, Samples, Subject

EVALUATIONS = "evaluations.jsonl"


def metric_names(source: str) -> tuple[str, ...]:
    """The metrics of runs on a source that need no download, the one that ranks first."""
    return (f"fd_{source}", "class_accuracy") if source in BUILT_IN else ()


def check_metrics(metrics: Sequence[str], source: str) -> tuple[str, ...]:
    """The metrics asked for on a source; those without a download if none is named.

    Raises:
      ConfigError: a metric that is none or does not fit the source.
      ValueError: none is named, and none goes without a download.
    """
    known = metric_names(source)
    if not metrics and not known:
        raise ValueError(
            f"config.data.source={source!r} has no metric that needs no download; name some, such "
            "as --metrics=fid50k_full,kid50k. --help lists them."
        )
    try:
        found = protocols.find(metrics or known)
    except ValueError as error:
        raise configs.ConfigError(str(error)) from None
    for protocol in found:
        if protocol.clip:
            raise configs.ConfigError(f"{protocol.name!r} is of videos; this run makes images.")
        if protocol.network == CLASSIFIER and protocol.name not in known:
            having = f"; these have: {', '.join(known)}, and all others." if known else "."
            raise configs.ConfigError(f"{protocol.name!r} is not for runs on {source}{having}")
    return tuple(protocol.name for protocol in found)


def evaluate(
    workdir: str | pathlib.Path,
    metrics: Sequence[str] = (),
    step: int | Literal["best"] | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures a checkpoint, prints a table and adds a line to ``evaluations.jsonl``.

    Args:
      workdir: of the run.
      metrics: names of protocols; empty for those that need no download.
      step: of a checkpoint, or ``"best"``; the newest without it.
      samples: see `Evaluation`.
      seed: of the samples, of the order of the real images, and of the classifier.

    Returns:
      The line, see `Evaluation`.

    Raises:
      ValueError: a metric that is none or does not fit the run's source, or lacks its weights.
      FileNotFoundError: no run there.
      CheckpointError: no checkpoint, or none of that step.
    """
    model = generate.load(workdir, step)
    metrics = check_metrics(metrics, model.config.data.source)
    source = open_source(model.config.data)
    record = Evaluation(model.config, source, metrics, samples, seed)(model)
    keep(record, pathlib.Path(workdir) / EVALUATIONS)
    if jax.process_index() == 0:
        print(table(record))
    return record


def compare(
    real: str | pathlib.Path,
    fake: str | pathlib.Path | None,
    metrics: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Measures the pictures of one folder or zip against those of another, and prints a table.

    Args:
      fake: None for metrics of real samples alone.
      metrics: names of protocols that take no classifier.
      seed: of the order of the pictures.

    Returns:
      A record as `Evaluation`'s, with ``folders`` in place of a step.

    Raises:
      ValueError: fewer pictures than a protocol wants, of several sizes or broken, or a metric
        that is none.
      FileNotFoundError: no pictures.
    """
    chosen = protocols.find(metrics or ("fid_all",))
    for protocol in chosen:
        if protocol.network == CLASSIFIER:
            raise ValueError(f"{protocol.name} measures runs on built-in data, not folders.")
        if fake is None and protocol.fakes != 0:
            raise ValueError(f"{protocol.name} compares two folders: give --fake as well.")
    records = []
    for clip, frames in dict.fromkeys((p.clip, _sees_frames(p)) for p in chosen):
        group = [p for p in chosen if (p.clip, _sees_frames(p)) == (clip, frames)]
        reals = _pictures(real, group, real=True, seed=seed)
        fakes = reals if fake is None else _pictures(fake, group, real=False, seed=seed)
        began = time.monotonic()
        bench = _Bench(reals, group, seed)
        results = bench.measure(fakes, group, available=len(fakes))
        found = bench.record(results, time.monotonic() - began)
        seen = {p.name: fakes.fingerprint for p in group if p.fakes != 0}
        records.append(found | {"fake": seen})
    record = functools.reduce(_merged, records)
    record["folders"] = {"real": str(real)} | ({"fake": str(fake)} if fake else {})
    if jax.process_index() == 0:
        print(table(record))
    return record


def _pictures(
    path: str | pathlib.Path, group: Sequence[Protocol], *, real: bool, seed: int
) -> Finite:
    """What a group of protocols of one kind of sample looks at in a folder or a zip."""
    if group[0].clip is None:
        return subjects.of_path(path, seed)
    counts = [p.reals if real else p.fakes for p in group]
    most = None if None in counts else max(count or 1 for count in counts)
    clips = subjects.of_videos(path, group[0].clip, real=real, count=most, seed=seed)
    return Frames(clips, group[0].clip[0]) if _sees_frames(group[0]) else clips


def _sees_frames(protocol: Protocol) -> bool:
    """Whether the network of a video metric looks at images."""
    return protocol.clip is not None and protocol.network not in (protocols.I3D, protocols.C3D)


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A record of both records' metrics."""
    joined = {name: one[name] | part for name, part in other.items() if isinstance(part, dict)}
    return one | joined | {"seconds": one["seconds"] + other["seconds"]}


def keep(record: dict[str, Any], file: str | pathlib.Path) -> None:
    """Adds a line to a file, in one write, so that programs that do so at once keep all lines."""
    if jax.process_index() == 0:
        with open(file, "ab", buffering=0) as stream:
            stream.write(json.dumps(record).encode() + b"\n")


def rank(record: dict[str, Any]) -> float:
    """How a record's first metric ranks its model; less is better."""
    name, value = next(iter(record["metrics"].items()))
    measure = record["protocols"][_protocol_of(name, record)]["measure"]
    return value if MEASURES[measure].better == "less" else -value


def _protocol_of(name: str, record: dict[str, Any]) -> str:
    """The protocol of a value: fid50k_full of fid50k_full, pr50k3 of pr50k3_recall."""
    return name if name in record["protocols"] else name.rpartition("_")[0]


class Evaluation:
    """Measures models of one run, all of them against the same real images.

    Args:
      config: the run's.
      source: the run's.
      metrics: names of protocols; empty for those that need no download.
      samples: how many, for the metrics of built-in data; all others fix it. 0 or None: theirs.
      seed: of the samples, of the order of the real images, and of the classifier.

    Raises:
      ValueError: a metric that is none or does not fit the run's source, or whose weights are
        absent; too few samples; another number of samples than a protocol's.
    """

    def __init__(
        self,
        config: ConfigDict,
        source: Source,
        metrics: Sequence[str] = (),
        samples: int | None = None,
        seed: int = 0,
    ):
        chosen = protocols.find(check_metrics(metrics, config.data.source))
        self._protocols = tuple(_with_samples(protocol, samples) for protocol in chosen)
        self._seed = seed
        self._reals = subjects.of_run(source, read_options(config.data), seed)
        self._bench = _Bench(self._reals, self._protocols, seed)
        self._programs: generate.Programs | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the protocols."""
        return tuple(protocol.name for protocol in self._protocols)

    def __call__(self, model: generate.Model) -> dict[str, Any]:
        """One record.

        Returns:
          Metrics with their values, their spread where the protocol states one, the references
          that they are read against (``real_real`` is the distance between two disjoint halves of
          the real images), counts, step, seed, protocols, hashes, versions and seconds.
        """
        began = time.monotonic()
        results: dict[Protocol, Result] = {}
        for labels in sorted({protocol.labels for protocol in self._protocols}):
            group = [protocol for protocol in self._protocols if protocol.labels == labels]
            drawn = self._labels(max(p.fakes or 0 for p in group)) if labels == "data" else None
            samples = Samples(model, self._seed, drawn, self._programs)
            self._programs = samples.model.programs
            results |= self._bench.measure(samples, group)
        ordered = {protocol: results[protocol] for protocol in self._protocols}
        record = self._bench.record(ordered, time.monotonic() - began)
        return record | {"step": model.step}

    def _labels(self, count: int) -> np.ndarray | None:
        """Labels of so many real images, drawn with replacement."""
        rng = np.random.default_rng([self._seed, 1])
        return self._reals.labels(rng.integers(len(self._reals), size=count))


def _with_samples(protocol: Protocol, samples: int | None) -> Protocol:
    if not samples or samples == protocol.fakes:
        return protocol
    if protocol.network != CLASSIFIER:
        raise ValueError(
            f"{samples} samples, but {protocol.name} is of {protocol.fakes}: another number is "
            "another metric. Leave --samples (config.evaluate.samples) out."
        )
    if samples < 2:
        raise ValueError(f"samples={samples}: a distance takes at least 2; 1000 is usual.")
    return dataclasses.replace(protocol, fakes=samples)


@dataclasses.dataclass(frozen=True)
class _Network:
    """A feature network, and what it is known by."""

    function: Callable[[Any, Any], Any]  # (variables, uint8 [n, h, w, c]) -> features by name
    variables: Any
    sha256: str
    known: float | None = None  # the classifier's accuracy on real images that it has not seen


class _Bench:
    """The real pictures' side of some protocols, and the measuring of samples against it."""

    def __init__(self, reals: Finite, chosen: Sequence[Protocol], seed: int):
        self._reals, self._protocols, self._seed = reals, tuple(chosen), seed
        self._folder = tempfile.TemporaryDirectory(prefix="ganjax-features-")
        for name in {protocol.network for protocol in chosen} - {CLASSIFIER}:
            weights.find(name)  # absent ones are an error now, not when they are first used

    def measure(
        self, fakes: Subject, chosen: Sequence[Protocol], available: int | None = None
    ) -> dict[Protocol, Result]:
        """Values of protocols for a set of samples, of which so many are available."""
        wants = {protocol: _want(protocol, _fakes(protocol, available)) for protocol in chosen}
        reals = self._real
        with tempfile.TemporaryDirectory(prefix="ganjax-features-") as folder:
            wanted = [want for want in wants.values() if want.count]
            found = self._collect(fakes, wanted, pathlib.Path(folder), "samples") if wanted else {}
            return {
                protocol: MEASURES[protocol.measure].compute(
                    Measured(
                        real=reals.get(_want(protocol, self._count(protocol))),
                        fake=found.get(want),
                        asked=fakes.asked(want.count),
                        known=self._networks[protocol.network].known,
                    ),
                    **protocol.options,
                )
                for protocol, want in wants.items()
            }

    def record(self, results: Mapping[Protocol, Result], seconds: float) -> dict[str, Any]:
        """What is kept of a measurement."""
        values = {
            "_".join((protocol.name, part)) if part else protocol.name: value
            for protocol, result in results.items()
            for part, value in result.values.items()
        }
        return {
            "time": time.time(),
            "seed": self._seed,
            "metrics": values,
            "spread": {p.name: r.spread for p, r in results.items() if r.spread is not None},
            "references": {p.name: dict(r.reference) for p, r in results.items()},
            "protocols": {p.name: dataclasses.asdict(p) for p in results},
            "real": {p.name: self._count(p) for p in results},
            "source": {p.name: self._reals.fingerprint for p in results},
            "weights": {name: network.sha256 for name, network in self._networks.items()},
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "versions": {"jax": jax.__version__, "ganjax": ganjax.__version__},
            "seconds": round(seconds, 2),
        }

    def _count(self, protocol: Protocol) -> int:
        """Real pictures of a protocol: NVIDIA's and StyleGAN-V's, too, take what there is."""
        there = len(self._reals)
        if protocol.fakes == 0 and there < (protocol.reals or 0):
            raise ValueError(
                f"{protocol.name} is of {protocol.reals} real samples, and there are {there}."
            )
        return there if protocol.reals is None else min(there, protocol.reals * _frames(protocol))

    @functools.cached_property
    def _networks(self) -> dict[str, _Network]:
        names = dict.fromkeys(protocol.network for protocol in self._protocols)
        return {
            name: self._classifier() if name == CLASSIFIER else self._load(name) for name in names
        }

    def _load(self, name: str) -> _Network:
        network = catalog.load(name)
        features = tuple(dict.fromkeys(p.feature for p in self._protocols if p.network == name))

        def function(variables: Any, images: Any) -> Any:
            if images.shape[-1] == 1:
                images = jnp.repeat(images, 3, axis=-1)
            return network.apply(variables, images, features)

        return _Network(function, network.variables, network.sha256)

    def _classifier(self) -> _Network:
        """Trained on the real pictures that its protocols look at."""
        count = max(self._count(p) for p in self._protocols if p.network == CLASSIFIER)
        assert isinstance(self._reals, Pictures), "only runs have classifiers"
        images = np.concatenate(list(self._reals.batches(range(count))))
        labels = self._reals.asked(count)
        assert labels is not None
        made = train_classifier(images, labels, len(self._reals.classes), self._seed)
        # Hosts with other numbers of cores round differently.
        params, accuracy = of_first((made.params, made.accuracy))

        def function(variables: Any, images: Any) -> Any:
            features, logits = made.network.apply({"params": variables}, images)
            return {"features": features, "logits": logits}

        digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(params)))
        return _Network(function, params, digest.hexdigest(), float(accuracy))

    @functools.cached_property
    def _real(self) -> dict[Want, Collected]:
        """What the protocols want of the real pictures, kept for the next time."""
        wants = [_want(p, self._count(p)) for p in self._protocols if self._count(p)]

        @functools.cache
        def collected() -> dict[Want, Collected]:
            folder = pathlib.Path(self._folder.name)
            return self._collect(self._reals, wants, folder, "real pictures")

        def kept(want: Want) -> Collected:
            if want.network == CLASSIFIER:
                return collected()[want]
            arrays = cached(
                cache_folder(),
                self._reals.fingerprint,
                {"name": f"{want.network}-{want.feature}"} | dataclasses.asdict(want),
                self._networks[want.network].sha256,
                lambda: _arrays(collected()[want]),
            )
            return arrays["rows"] if want.form == "rows" else Halves.from_arrays(arrays)

        return {want: kept(want) for want in wants}

    def _collect(
        self, subject: Subject, wants: Iterable[Want], folder: pathlib.Path, what: str
    ) -> dict[Want, Collected]:
        """Features of a subject's pictures, each process seeing to its share."""
        # Each want is merged by all processes together, so they take them in one order: no sets.
        wants = tuple(dict.fromkeys(wants))
        names = dict.fromkeys(want.network for want in wants)
        networks = {n: (self._networks[n].function, self._networks[n].variables) for n in names}
        places = share(max(want.count for want in wants))
        quiet = jax.process_index() > 0 or not sys.stderr.isatty()
        with tqdm.tqdm(total=len(places), desc=what, leave=False, disable=quiet) as bar:

            def batches() -> Iterator[np.ndarray]:
                for batch in subject.batches(places):
                    yield batch
                    bar.update(len(batch))

            # A clip is as much as its frames: 64 clips of 128 would not fit anywhere.
            frames = max(
                p.clip[0] if p.clip and not _sees_frames(p) else 1 for p in self._protocols
            )
            features = Networks(networks, max(1, BATCH // frames))(batches())
            return collect(features, places.start, wants, folder, subject.describe)


def _want(protocol: Protocol, count: int) -> Want:
    form = MEASURES[protocol.measure].form
    return Want(protocol.network, protocol.feature, count, form)


def _fakes(protocol: Protocol, available: int | None) -> int:
    """How many samples a protocol takes of those that are available; None: any number."""
    if protocol.fakes is None:
        if available is None:
            raise ValueError(
                f"{protocol.name} takes all pictures of a folder; a model has no end of them. "
                "Choose a metric with a number: --help lists them."
            )
        return available
    wanted = protocol.fakes * _frames(protocol)
    if available is not None and available < wanted:
        raise ValueError(
            f"{protocol.name} is of {protocol.fakes} samples, and there are "
            f"{available // _frames(protocol)}. Make more, or choose a metric of as many as there "
            "are, as fid_all: --help lists them."
        )
    return wanted


def _frames(protocol: Protocol) -> int:
    """Pictures that the network sees of a sample."""
    return protocol.clip[0] if protocol.clip and _sees_frames(protocol) else 1


def _arrays(collected: Collected) -> dict[str, np.ndarray]:
    return collected.to_arrays() if isinstance(collected, Halves) else {"rows": collected}


def _number(samples: int | None) -> str:
    return "all" if samples is None else f"{samples or ''}"


def cache_folder() -> pathlib.Path:
    """Where statistics of real sets are kept: ``$XDG_CACHE_HOME/ganjax/statistics``."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(home).expanduser() / "ganjax" / "statistics"


def table(record: dict[str, Any]) -> str:
    """A record as aligned text."""
    rows = [("metric", "value", "reference", "", "samples", "real")]
    for name, value in record["metrics"].items():
        of = _protocol_of(name, record)
        spread = record["spread"].get(of)
        what, reference = next(iter(record["references"][of].items()), ("", None))
        rows.append(
            (
                name,
                f"{value:.4g}" + (f" +- {spread:.2g}" if spread is not None else ""),
                "" if reference is None else f"{reference:.4g}",
                what,
                _number(record["protocols"][of]["fakes"]),
                f"{record['real'][of] or ''}",
            )
        )
    columns = []
    for column, align in zip(zip(*rows), "<>><>>"):
        width = max(map(len, column))
        columns.append([f"{cell:{align}{width}}" for cell in column])
    lines = ["  ".join(row).rstrip() for row in zip(*columns)]
    step = f"step {record['step']}: " if "step" in record else ""
    lines.append(f"{step}seed {record['seed']}, {record['seconds']:.0f} s, {record['device']}")
    return "\n".join(lines)
