"""Measure a run, or two folders of pictures: ``--mode=evaluate``, or from Python.

A metric's name stands for its whole protocol (`metrics.protocols`). Real pictures and samples are
each passed over once, for all metrics together; what real pictures gave is kept for the next time.
"""

import dataclasses
import functools
import json
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from ml_collections import ConfigDict

from ganjax import config as configs
from ganjax import generate
from ganjax.bench import Bench, Repeats, frames_seen
from ganjax.data.sources import BUILT_IN, LABELLED, Source, open_source, read_options
from ganjax.family import Family, Request
from ganjax.metrics import protocols
from ganjax.metrics.measures import MEASURES, Result
from ganjax.metrics.protocols import COMBINATIONS, FRAMES, Protocol
from ganjax.pretrained import catalog
from ganjax.subjects import Finite, Nothing, Subject, captions, pictures, videos
from ganjax.subjects.captioned_shapes import Asked, HeldOut
from ganjax.subjects.models import Pairs, Samples

EVALUATIONS = "evaluations.jsonl"
# What may differ where a run is measured: where its data is, and how it is read.
OTHER = ("data.source", "data.name", "data.split")
READS = (*OTHER, *(name for name in configs.RESUMABLE if name.startswith("data.")))


def metric_names(source: str, family: Family | None = None) -> tuple[str, ...]:
    """The metrics of runs on a source that need no download, the one that ranks first.

    Args:
      family: of the run; one of videos has others.
    """
    if _clips(family):
        return ("fd_shape_clips", "frame_difference") if source == "shapes" else ()
    if source not in BUILT_IN:
        return ()
    if source in LABELLED:
        return f"fd_{source}", "class_accuracy"
    asked = ("prompt_accuracy", "clip_score_shapes") if generate.reads_texts(family) else ()
    return f"fd_{source}", *asked


def _clips(family: Family | None) -> bool:
    """Whether it makes videos."""
    return family is not None and "clip" in family.item


def check_metrics(
    metrics: Sequence[str], source: str, family: Family | None = None
) -> tuple[str, ...]:
    """The metrics asked for on a source; those without a download if none is named.

    Args:
      family: of the run, to be looked at as well.

    Raises:
      ConfigError: a metric that is none or does not fit the source or the family.
      ValueError: none is named, and none goes without a download.
    """
    known = metric_names(source, family)
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
        if bool(protocol.clip) != _clips(family):
            kinds = ("videos", "images") if protocol.clip else ("images", "videos")
            raise configs.ConfigError(f"{protocol.name!r} is of %s; this run makes %s." % kinds)
        if protocol.caption is not None and not (protocol.fakes and generate.reads_texts(family)):
            raise configs.ConfigError(
                f"{protocol.name!r} is of pictures and their captions; this run makes none. "
                "Measure a folder of pictures with a text beside each: --real=FOLDER."
                if not generate.reads_texts(family)
                else f"{protocol.name!r} is of a folder of pictures with a text beside each: "
                "--real=FOLDER. Of runs there are clip_score30k_b32 and clip_score30k_l14."
            )
        if protocol.probe and family and protocol.probe.name not in family.probes:
            having = ", ".join(map(repr, family.probes)) or "none"
            raise configs.ConfigError(
                f"{protocol.name!r} is of pairs of images that a family makes by its probe "
                f"{protocol.probe.name!r}; this run's family has {having}."
            )
        if protocol.prompts == "heldout" and family and not generate.reads_texts(family):
            raise configs.ConfigError(
                f"{protocol.name!r} is of samples for prompts; this run's family makes none from "
                "texts, as that of configs/aurora.py does."
            )
        if protocol.built_in and protocol.name not in known:
            others = (
                "take one that looks at no built-in data (--help), as fid50k_full or fvd2048_16f."
            )
            having = (
                f"; these have: {', '.join(known)}, and all others." if known else f"; {others}"
            )
            raise configs.ConfigError(f"{protocol.name!r} is not for runs on {source}{having}")
    return tuple(protocol.name for protocol in found)


def needs_data(
    chosen: Sequence[Protocol], config: ConfigDict, family: Family | None = None
) -> bool:
    """Whether protocols look at a run's data: some are of samples alone.

    Args:
      family: of the run: one that draws what texts say is asked for its captions.
    """
    classes, texts = config.data.get("classes", 0) or 1, generate.reads_texts(family)
    return any(
        p.reals != 0 or (p.labels == "data" and classes > 1) or (texts and p.prompts == "data")
        for p in chosen
    )


def evaluate(
    workdir: str | pathlib.Path,
    metrics: Sequence[str] = (),
    step: int | Literal["best"] | None = None,
    samples: int | None = None,
    seed: int = 0,
    overrides: Mapping[str, str] = types.MappingProxyType({}),
) -> dict[str, Any]:
    """Measures a checkpoint, prints a table and adds a line to ``evaluations.jsonl``.

    Args:
      workdir: of the run.
      metrics: names of protocols; empty for those that need no download.
      step: of a checkpoint, or ``"best"``; the newest without it.
      samples: see `Evaluation`.
      seed: of the samples, of the order of the real images, and of the classifier.
      overrides: of the run's config, by field: its data, where that is now, how it is read.

    Returns:
      The line, see `Evaluation`.

    Raises:
      ConfigError: an override of something else.
      ValueError: a metric that is none or does not fit the run's source, or lacks its weights.
      FileNotFoundError: no run there.
      CheckpointError: no checkpoint, or none of that step.
    """
    model = generate.load(workdir, step)
    for name in overrides:
        if name not in READS:
            raise configs.ConfigError(
                f"--config.{name} changes a run, which is measured by its own config. Where its "
                f"data is and how it is read may differ: {', '.join(READS)}."
            )
    config = model.config.copy_and_resolve_references().unlock()
    if "data.source" in overrides:
        config.data.path = ""  # of the run's own source
    config = configs.override(config, overrides)
    metrics = check_metrics(metrics, config.data.source, model.family)
    chosen = protocols.find(metrics)
    source = open_source(config.data) if needs_data(chosen, config, model.family) else None
    record = Evaluation(config, source, metrics, samples, seed, model.family)(model)
    keep(record, pathlib.Path(workdir) / EVALUATIONS)
    if jax.process_index() == 0:
        print(table(record))
    return record


def compare(
    real: str | pathlib.Path | None,
    fake: str | pathlib.Path | None,
    metrics: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Measures the pictures of one folder or zip against those of another, and prints a table.

    Args:
      real: None for metrics of samples alone.
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
        if protocol.built_in:
            raise ValueError(f"{protocol.name} measures runs on built-in data, not folders.")
        for side, path, count in (("real", real, protocol.reals), ("fake", fake, protocol.fakes)):
            if path is None and count != 0:
                raise ValueError(f"{protocol.name} compares two folders: give --{side} as well.")
        if protocol.probe:
            raise ValueError(f"{protocol.name} measures runs by their generator, not folders.")
    records = []
    for group in protocols.that_see_alike(chosen):
        other_side = None if fake is None else _opened(fake, group, real=False)
        real_side = other_side if real is None else _opened(real, group, real=True)
        assert real_side is not None, "some side is wanted"
        other_side = other_side or real_side
        seen: dict[str, str] = {}
        once = functools.partial(_compared, group, other_side, seen)
        records.append(Repeats(group, real_side, seed).record(once) | {"fake": seen})
    record = functools.reduce(_merged, records)
    both = {"real": real, "fake": fake}
    record["folders"] = {side: str(path) for side, path in both.items() if path is not None}
    if jax.process_index() == 0:
        print(table(record))
    return record


def _compared(
    group: Sequence[Protocol],
    side: Callable[[int], Finite],
    seen: dict[str, str],
    bench: Bench,
    seed: int,
) -> dict[Protocol, Result]:
    """Values for one seed; notes the fingerprints of what was looked at first."""
    fakes = side(seed)
    for protocol in group:
        if protocol.fakes != 0:
            seen.setdefault(protocol.name, fakes.fingerprint)
    return bench.measure(fakes, group, available=len(fakes))


def _opened(
    path: str | pathlib.Path, group: Sequence[Protocol], *, real: bool
) -> Callable[[int], Finite]:
    """What a group of protocols looks at in a folder or a zip, by a seed."""
    first = group[0]
    if first.caption is not None:
        tokenizer = catalog.find_tokenizer(first.network)
        size = catalog.kind_of(first.network).examples[0].shape[1]
        captioned = captions.of_path(path, tokenizer, size, first.caption)
        return lambda seed: captioned
    if first.clip is None:
        return lambda seed: pictures.of_path(path, seed)
    seen, count = videos.of_path(path), _most(group, real=real)
    if real:
        return lambda seed: videos.real(seen, first, count, seed)
    return lambda seed: videos.leading(seen, first, count)


def _most(group: Sequence[Protocol], *, real: bool) -> int | None:
    """Samples that some protocol of a group takes; None: all."""
    counts = [protocol.reals if real else protocol.fakes for protocol in group]
    return None if None in counts else max(count or 1 for count in counts)


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
    of = _protocol_of(name, record)
    better = MEASURES[record["protocols"][of]["measure"]].better
    if better == "near":
        return abs(value - next(iter(record["references"][of].values())))
    return value if better == "less" else -value


def _protocol_of(name: str, record: dict[str, Any]) -> str:
    """The protocol of a value: fid50k_full of fid50k_full, pr50k3 of pr50k3_recall."""
    return name if name in record["protocols"] else name.rpartition("_")[0]


class Evaluation:
    """Measures models of one run, all of them against the same real images.

    Args:
      config: the run's.
      source: the run's; None where no protocol `needs_data`.
      metrics: names of protocols; empty for those that need no download.
      samples: how many, for the metrics of built-in data; all others fix it. 0 or None: theirs.
      seed: of the samples, of the order of the real images, and of the classifier.
      family: the run's, if it is there already.

    Raises:
      ValueError: a metric that is none or does not fit the run, or whose weights are absent; too
        few samples; another number of samples than a protocol's.
    """

    def __init__(
        self,
        config: ConfigDict,
        source: Source | None,
        metrics: Sequence[str] = (),
        samples: int | None = None,
        seed: int = 0,
        family: Family | None = None,
    ):
        chosen = protocols.find(check_metrics(metrics, config.data.source, family))
        self._protocols = tuple(_with_samples(protocol, samples) for protocol in chosen)
        self._source, self._options = source, read_options(config.data)
        self._held_out = HeldOut(self._options.resolution, self._options.objects)
        self._texts: dict[tuple[int, int], tuple[str, ...]] = {}
        self._groups = [
            Repeats(group, self._opened(group), seed)
            for group in protocols.that_see_alike(self._protocols)
        ]
        self._programs: generate.Programs | None = None
        self._classes = config.data.get("classes", 0) or 1
        self._labels: dict[tuple[int, int], np.ndarray | None] = {}

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
        records = [
            group.record(functools.partial(self._once, model, group.protocols))
            for group in self._groups
        ]
        record = functools.reduce(_merged, records)
        record["metrics"] = {
            name: value
            for protocol in self._protocols
            for name, value in record["metrics"].items()
            if _protocol_of(name, record) == protocol.name
        }
        return record | {"step": model.step}

    def _opened(self, group: Sequence[Protocol]) -> Callable[[int], Finite]:
        """What a group of protocols looks at in the run's data, by a seed."""
        first, source = group[0], self._source
        if first.prompts == "heldout":
            return lambda seed: self._held_out
        if source is None:
            return lambda seed: Nothing()
        if first.clip is None:
            return lambda seed: pictures.of_run(source, self._options, seed)
        assert isinstance(source, videos.VideoSource), "families of videos train on such"
        seen, count = videos.of_run(source, self._options), _most(group, real=True)
        return lambda seed: videos.real(seen, first, count, seed)

    def _once(
        self, model: generate.Model, group: Sequence[Protocol], bench: Bench, seed: int
    ) -> dict[Protocol, Result]:
        results: dict[Protocol, Result] = {}
        for labels in sorted({protocol.labels for protocol in group}):
            alike = [protocol for protocol in group if protocol.labels == labels]
            count = max(protocol.fakes or 0 for protocol in alike)
            drawn = self._drawn_labels(count, seed) if labels == "data" else None
            subject: Subject
            if generate.reads_texts(model.family):
                subject = self._prompted(model, alike[0], seed, count)
            else:
                subject = self._samples(model, alike[0], seed, drawn)
            results |= bench.measure(subject, alike)
        return results

    def _prompted(self, model: generate.Model, first: Protocol, seed: int, count: int) -> Subject:
        """Samples for so many prompts, one for each, as the protocol looks at them."""
        scenes = self._held_out.scenes(count) if first.prompts == "heldout" else []
        prompts = tuple(s.caption for s in scenes) or self._drawn_texts(count, seed)
        request = Request(prompts=prompts)
        samples = Samples(model, seed, programs=self._programs, request=request)
        self._programs = samples.model.programs
        if first.network == COMBINATIONS:
            return Asked(samples, scenes)
        if first.caption is None:
            return samples
        tokenizer = catalog.find_tokenizer(first.network)
        size = catalog.kind_of(first.network).examples[0].shape[1]
        return captions.Prompted(samples, prompts, tokenizer, size, first.caption)

    def _drawn_texts(self, count: int, seed: int) -> tuple[str, ...]:
        """The captions of the first real pictures; read once."""
        assert self._source is not None, "captions are data"
        if (count, seed) not in self._texts:
            reals = pictures.of_run(self._source, self._options, seed)
            self._texts[count, seed] = reals.captions(count)
        if not self._texts[count, seed]:
            raise ValueError(
                f"{self._source.name!r} has no captions, which this run's samples are asked for. "
                "Measure it on data with captions: docs/data.md."
            )
        return self._texts[count, seed]

    def _samples(
        self, model: generate.Model, first: Protocol, seed: int, labels: np.ndarray | None
    ) -> Subject:
        if first.probe:
            return Pairs(model, first.probe, seed, labels)
        samples = Samples(model, seed, labels, self._programs, first.clip)
        self._programs = samples.model.programs
        return videos.Frames(samples, frames_seen(first)) if first.sees_frames else samples

    def _drawn_labels(self, count: int, seed: int) -> np.ndarray | None:
        """Labels of so many real samples, drawn with replacement; read once."""
        if self._source is None:
            return None
        if (count, seed) not in self._labels:
            if isinstance(self._source, videos.VideoSource):
                drawn = videos.drawn_labels(self._source, count, seed)
            else:
                drawn = pictures.of_run(self._source, self._options, seed).drawn_labels(count, seed)
            if drawn is not None and drawn.max() >= self._classes:
                raise ValueError(
                    f"{self._source.name!r} has pictures of class {drawn.max()}, and the run has "
                    f"classes 0 to {self._classes - 1}; set config.data.path to data with these."
                )
            self._labels[count, seed] = drawn
        return self._labels[count, seed]


def _with_samples(protocol: Protocol, samples: int | None) -> Protocol:
    if not samples or samples == protocol.fakes:
        return protocol
    if not protocol.built_in and protocol.network != FRAMES:
        raise ValueError(
            f"{samples} samples, but {protocol.name} is of {protocol.fakes}: another number is "
            "another metric. Leave --samples (config.evaluate.samples) out."
        )
    if samples < 2:
        raise ValueError(f"samples={samples}: a distance takes at least 2; 1000 is usual.")
    return dataclasses.replace(protocol, fakes=samples)


def _number(samples: int | None) -> str:
    return "all" if samples is None else f"{samples or ''}"


def table(record: dict[str, Any]) -> str:
    """A record as aligned text."""
    rows = [("metric", "value", "reference", "", "samples", "real")]
    for name, value in record["metrics"].items():
        of = _protocol_of(name, record)
        spread = record["spread"].get(of)
        references = record["references"][of]
        what = next(iter(references), "")
        # Of several values each may have its own.
        own = f"{what}_{name.removeprefix(of).removeprefix('_')}"
        what = own if own in references else what
        reference = references.get(what)
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
