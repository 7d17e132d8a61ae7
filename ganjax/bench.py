"""Samples against real ones: features of both, what is kept of the real ones, values, a record."""

import copy
import dataclasses
import functools
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

import ganjax
from ganjax.data.demo import ShapeVideos
from ganjax.layers.images import to_float
from ganjax.metrics import shape_clips
from ganjax.metrics.cache import cached
from ganjax.metrics.classifier import train_classifier
from ganjax.metrics.clips import real_clips
from ganjax.metrics.collect import Collected, Halves, Want, collect
from ganjax.metrics.features import BATCH, Extractor
from ganjax.metrics.hosts import of_first, share
from ganjax.metrics.measures import MEASURES, Measured, Result, averaged
from ganjax.metrics.pairs import squares
from ganjax.metrics.protocols import (
    CLASSIFIER,
    COMBINATIONS,
    FRAMES,
    NO_WEIGHTS,
    PIXELS,
    SHAPE_CLIPS,
    Protocol,
)
from ganjax.pretrained import catalog
from ganjax.subjects import Finite, Subject
from ganjax.subjects.captioned_shapes import HeldOut, classifier
from ganjax.subjects.models import Pairs
from ganjax.subjects.pictures import Pictures

SHAPE_VIDEOS = 2000  # that the network of clips learns from
PAIRS_BATCH = 16  # pairs of images that a generator makes together


@dataclasses.dataclass(frozen=True)
class _Network:
    """A feature network, and what it is known by."""

    function: Callable[[Any, Any], Any]  # (variables, uint8 [n, h, w, c]) -> features by name
    variables: Any
    sha256: str
    known: float | None = None  # the classifier's accuracy on real images that it has not seen


class Bench:
    """The real side of some protocols that see alike, and the measuring of samples against it.

    Args:
      reals: that are looked at.
      chosen: the protocols; what they see (`Protocol.sees`) is equal.
      seed: of the classifier, and of what the record says.

    Raises:
      ValueError: weights of a network are absent.
    """

    def __init__(self, reals: Finite, chosen: Sequence[Protocol], seed: int):
        self._reals, self._protocols, self._seed = reals, tuple(chosen), seed
        self._folder = tempfile.TemporaryDirectory(prefix="ganjax-features-")
        self._extractors: dict[tuple[str, ...], Extractor] = {}
        for name in {protocol.network for protocol in chosen}.difference(NO_WEIGHTS):
            catalog.find(name)  # absent ones are an error now, not when they are first used

    def again(self, reals: Finite, seed: int) -> "Bench":
        """The same networks, already compiled, and other real samples."""
        _ = self._networks  # loaded once for all
        other = copy.copy(self)
        other._reals, other._seed = reals, seed
        other._folder = tempfile.TemporaryDirectory(prefix="ganjax-features-")
        other.__dict__.pop("_real", None)
        return other

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
            "protocols": {p.name: p.record() for p in results},
            "real": {p.name: self._count(p) for p in results},
            "source": {p.name: self._reals.fingerprint for p in results if p.reals != 0},
            "weights": {n: k.sha256 for n, k in self._networks.items() if n != PIXELS},
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
        wanted = there if protocol.reals is None else protocol.reals * frames_seen(protocol)
        return min(there, wanted)

    @functools.cached_property
    def _networks(self) -> dict[str, _Network]:
        names = dict.fromkeys(protocol.network for protocol in self._protocols)
        made = {
            CLASSIFIER: self._classifier,
            COMBINATIONS: self._combinations,
            PIXELS: _pixels,
            SHAPE_CLIPS: _shape_clips,
            FRAMES: _differences,
        }
        return {name: made[name]() if name in made else self._load(name) for name in names}

    def _load(self, name: str) -> _Network:
        network = catalog.load(name)
        features = tuple(dict.fromkeys(p.feature for p in self._protocols if p.network == name))

        def function(variables: Any, images: Any) -> Any:
            if isinstance(images, jax.Array) and images.shape[-1] == 1:
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

        return _Network(function, params, catalog.digest(params), float(accuracy))

    def _combinations(self) -> _Network:
        """Of captioned shapes, trained once for all runs of a size."""
        assert isinstance(self._reals, HeldOut), "only runs on captioned shapes are asked for them"
        made = classifier(self._reals.resolution, self._reals.objects, cache_folder())
        params, accuracy = of_first((made.params, made.accuracy))

        def function(variables: Any, images: Any) -> Any:
            return {"logits": made.network.apply({"params": variables}, images)[1]}

        return _Network(function, params, catalog.digest(params), float(accuracy))

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
        places = share(max(want.count for want in wants))
        quiet = jax.process_index() > 0 or not sys.stderr.isatty()
        with tqdm.tqdm(total=len(places), desc=what, leave=False, disable=quiet) as bar:

            def counted(features: Iterable[Any]) -> Iterator[Any]:
                for batch in features:
                    yield batch
                    bar.update(len(jax.tree.leaves(batch)[0]))

            names = tuple(dict.fromkeys(want.network for want in wants))
            features = counted(self._extractor(names, subject)(subject.batches(places)))
            return collect(features, places.start, wants, folder, subject.describe)

    def _extractor(self, names: tuple[str, ...], subject: Subject) -> Extractor:
        """All networks in one program, so that a set is passed over once; compiled once."""
        variables: Any = {name: self._networks[name].variables for name in names}
        functions = {name: self._networks[name].function for name in names}
        if isinstance(subject, Pairs):
            make = subject.make

            def of_pairs(variables: Any, places: Any) -> Any:
                pairs = make(variables["pairs"], places)
                return {name: each(variables[name], pairs) for name, each in functions.items()}

            variables["pairs"] = subject.variables
            if names not in self._extractors:
                self._extractors[names] = Extractor(of_pairs, variables, PAIRS_BATCH)
            return self._extractors[names].bound(variables)

        def of_samples(variables: Any, samples: Any) -> Any:
            return {name: each(variables[name], samples) for name, each in functions.items()}

        if names not in self._extractors:
            # A clip is as much as its frames: 64 clips of 128 would not fit anywhere.
            first = self._protocols[0]
            frames = first.clip.frames if first.clip and not first.sees_frames else 1
            self._extractors[names] = Extractor(of_samples, variables, max(1, BATCH // frames))
        return self._extractors[names]


class Repeats:
    """Protocols that see alike, with a bench for each time that they are measured.

    Args:
      chosen: the protocols.
      real: the real side by a seed.
      seed: of the first time; each other has the next one.

    Raises:
      ValueError: weights of a network are absent.
    """

    def __init__(self, chosen: Sequence[Protocol], real: Callable[[int], Finite], seed: int):
        self.protocols, self._real, self._seed = tuple(chosen), real, seed
        self._benches = [Bench(real(seed), chosen, seed)]

    def record(self, once: Callable[[Bench, int], Mapping[Protocol, Result]]) -> dict[str, Any]:
        """What is kept of all times: means, with their deviation.

        Args:
          once: measures by a bench and a seed.
        """
        began = time.monotonic()
        first = self._benches[0]
        seeds = range(self._seed, self._seed + self.protocols[0].repeats)
        for seed in seeds[len(self._benches) :]:
            self._benches.append(first.again(self._real(seed), seed))
        found = [once(bench, seed) for bench, seed in zip(self._benches, seeds)]
        results = {name: averaged([results[name] for results in found]) for name in found[0]}
        return first.record(results, time.monotonic() - began)


def _pixels() -> _Network:
    """Compares pairs as they are; of pictures, their pixels in [-1, 1]."""

    def function(_: Any, samples: Any) -> dict[str, Any]:
        if isinstance(samples, Mapping):
            return {"squares": squares(samples)}
        return {"pixels": to_float(samples).reshape(len(samples), -1)}

    return _Network(function, (), PIXELS)


def _differences() -> _Network:
    """Of neighbouring frames, their mean over a clip."""

    def function(_: Any, clips: Any) -> Any:
        steps = jnp.abs(jnp.diff(clips.astype(jnp.float32), axis=1))
        return {"difference": jnp.mean(steps, axis=(1, 2, 3, 4))[:, None]}

    return _Network(function, (), FRAMES)


def _shape_clips() -> _Network:
    """Trained on built-in videos of its own seed, and kept for the next time."""
    source = ShapeVideos((shape_clips.SIDE,) * 2, count=SHAPE_VIDEOS, seed=1)
    classes = len(source.classes)

    def trained() -> dict[str, np.ndarray]:
        lengths = [len(source.video(index)) for index in range(len(source))]
        chosen = real_clips(lengths, shape_clips.FRAMES)
        known = list(zip(chosen.videos.tolist(), chosen.frames))
        clips = [source.video(index).read(frames) for index, frames in known]
        moves = [source.moves(index, (frames / source.rate).tolist()) for index, frames in known]
        labels = [source[index]["label"] for index, _ in known]
        _, params = shape_clips.train(np.stack(clips), np.array(labels), np.stack(moves), classes)
        return shape_clips.to_arrays(params)

    recipe = {"name": SHAPE_CLIPS, "steps": shape_clips.STEPS, "version": 1}
    arrays = cached(cache_folder(), source.fingerprint(), recipe, "trained here", trained)
    params = of_first(shape_clips.from_arrays(arrays))
    network = shape_clips.Network(classes, moves=len(source.moves(0, (0.0, 1.0))))

    def function(variables: Any, clips: Any) -> Any:
        features, *_ = network.apply({"params": variables}, clips)
        return {"features": features}

    return _Network(function, params, catalog.digest(params))


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
    frames = frames_seen(protocol)
    wanted = protocol.fakes * frames
    if available is not None and available < wanted:
        raise ValueError(
            f"{protocol.name} is of {protocol.fakes} samples, and there are "
            f"{available // frames}. Make more, or choose a metric of as many as there "
            "are, as fid_all: --help lists them."
        )
    return wanted


def frames_seen(protocol: Protocol) -> int:
    """Pictures that the network sees of a sample."""
    return protocol.clip.frames if protocol.clip and protocol.sees_frames else 1


def _arrays(collected: Collected) -> dict[str, np.ndarray]:
    return collected.to_arrays() if isinstance(collected, Halves) else {"rows": collected}


def cache_folder() -> pathlib.Path:
    """Where statistics of real sets are kept: ``$XDG_CACHE_HOME/ganjax/statistics``."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(home).expanduser() / "ganjax" / "statistics"
