"""Measuring by pairs of images: from a family's probe to the value, on eight devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import stylegan2
from ganjax import bench, evaluate, family, generate
from ganjax.config import ConfigError
from ganjax.data.demo import Digits
from ganjax.metrics.protocols import BY_NAME, Probe
from ganjax.subjects import models, pictures
from ganjax.subjects.models import Pairs

REALS = pictures.Pictures(Digits((16, 16)))  # nothing of which is wanted


@pytest.fixture(scope="module")
def model():
    config = stylegan2.tiny()
    made = family.build(config, "cpu")
    return generate.Model(made, jax.device_put(made.init(jax.random.key(0)).ema), config, step=1)


class Squares:
    """In place of VGG16: mean squared difference of the pair."""

    variables, sha256 = (), "of squares"

    def apply(self, variables, pairs, features):
        return dict.fromkeys(features, jnp.square(pairs["one"] - pairs["other"]).mean((1, 2, 3)))


def few(name, count):
    return dataclasses.replace(BY_NAME[name], fakes=count)


def test_path_length_of_a_generator(model, monkeypatch):
    monkeypatch.setattr(bench.catalog, "find", lambda name: None)
    monkeypatch.setattr(bench.catalog, "load", lambda name: Squares())
    protocol = few("ppl2_wend", 21)
    labels = np.arange(21)[::-1] % 10
    pairs = Pairs(model, protocol.probe, 3, labels)
    here = bench.Bench(REALS, [protocol], seed=3)
    result = here.measure(pairs, [protocol])[protocol]
    probe = model.family.probes["path"]
    drawn = jax.random.key(3), jnp.arange(21), jnp.asarray(labels)
    found = probe(model.variables, *drawn, **protocol.probe.options)
    lengths = np.sort(np.square(found["one"] - found["other"]).mean((1, 2, 3)) / 1e-8)
    # The first and last percent of so few are their ends, which stay.
    assert result.values[""] == pytest.approx(lengths.mean(), rel=1e-2)
    record = here.record({protocol: result}, 1.0)
    assert record["weights"] == {"vgg16": "of squares"} and record["real"] == {"ppl2_wend": 0}
    assert record["protocols"]["ppl2_wend"]["probe"]["options"]["epsilon"] == 1e-4
    program = here._extractors["vgg16",]
    again = here.measure(Pairs(model, protocol.probe, 3, labels), [protocol])[protocol]
    assert again.values == result.values
    later = jax.tree.map(lambda x: 1.2 * x, model.variables)
    later = generate.Model(model.family, later, model.config, step=2)
    after = here.measure(Pairs(later, protocol.probe, 3, labels), [protocol])[protocol]
    assert after.values[""] != pytest.approx(result.values[""], rel=0.1)
    assert here._extractors["vgg16",] is program  # nothing is compiled anew
    assert program._program._cache_size() == 1


def test_pixels_of_pairs_need_no_weights(model):
    def shifted(variables, key, indices, labels, *, reach, whole):
        assert whole
        one = jnp.zeros((len(indices), 4, 4, 3))
        return {"one": one, "other": one + reach * indices[:, None, None, None]}

    moved = dataclasses.replace(model.family, probes={"translation": shifted})
    other = generate.Model(moved, model.variables, model.config, model.step)
    protocol = dataclasses.replace(
        few("eqt50k_int", 5), probe=Probe("translation", {"reach": 0.5, "whole": True})
    )
    here = bench.Bench(REALS, [protocol], seed=0)
    result = here.measure(Pairs(other, protocol.probe), [protocol])[protocol]
    # Squares of 0, 0.5, 1, 1.5 and 2: 1.5 in the mean.
    assert result.values[""] == pytest.approx(10 * np.log10(4 / 1.5), rel=1e-6)
    assert here.record({protocol: result}, 1.0)["weights"] == {}


def test_a_run_is_measured_by_pairs_and_pictures_together(model, monkeypatch):
    """Each has its own pass; values stay in the order that was asked, and the first one ranks."""
    monkeypatch.setattr(bench.catalog, "find", lambda name: None)
    monkeypatch.setattr(bench.catalog, "load", lambda name: Squares())
    monkeypatch.setattr(evaluate, "Samples", lambda *args: Stub(model))
    monkeypatch.setattr(bench, "train_classifier", lambda *args: Classes())
    names = ["ppl2_wend", "class_accuracy", "ppl_zfull", "ppl_wend"]
    for name in names:
        monkeypatch.setitem(BY_NAME, name, few(name, 8))
    source = Digits((16, 16))
    made = evaluate.Evaluation(model.config, source, names, family=model.family)
    record = made(model)
    assert list(record["metrics"]) == names and record["step"] == 1
    assert evaluate.rank(record) == record["metrics"]["ppl2_wend"] > 0
    assert record["metrics"]["ppl_zfull"] != record["metrics"]["ppl2_wend"]
    assert "ppl_zfull" in evaluate.table(record)


def test_samples_alone_need_no_data(model, monkeypatch):
    monkeypatch.setattr(bench.catalog, "find", lambda name: None)
    monkeypatch.setattr(bench.catalog, "load", lambda name: Squares())
    monkeypatch.setitem(BY_NAME, "ppl2_wend", few("ppl2_wend", 3))
    one_class = model.config.copy_and_resolve_references()
    assert evaluate.needs_data([BY_NAME["ppl2_wend"]], one_class)  # for its labels
    one_class.data.classes = 1
    assert not evaluate.needs_data([BY_NAME["ppl2_wend"]], one_class)
    assert evaluate.needs_data([BY_NAME["fid50k"]], one_class)
    record = evaluate.Evaluation(one_class, None, ["ppl2_wend"], family=model.family)(model)
    assert record["metrics"]["ppl2_wend"] > 0 and record["source"] == {}


class Stub(models.Samples):
    """Black pictures."""

    def batches(self, places):
        yield np.zeros((len(places), 16, 16, 3), np.uint8)


class Classes:
    """A classifier that always says 0."""

    params, accuracy = {"bias": np.zeros(1)}, 0.5

    class network:
        @staticmethod
        def apply(variables, images):
            return images[:, 0, 0].astype("float32"), jnp.eye(10)[jnp.zeros(len(images), int)]


def test_a_family_without_the_probe_is_named(model):
    with pytest.raises(ConfigError, match="'eqr50k' is of pairs .* 'rotation'.* has 'path'"):
        still = dataclasses.replace(model.family, probes={"path": model.family.probes["path"]})
        evaluate.check_metrics(["eqr50k"], "digits", still)
    with pytest.raises(ValueError, match="ppl2_wend measures runs"):
        evaluate.compare("a", "b", ["ppl2_wend"])
