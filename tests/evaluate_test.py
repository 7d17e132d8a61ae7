"""Evaluating a run: the numbers mean what they say, the record is kept, mistakes are named."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest
from PIL import Image

import ganjax
from configs import biggan
from ganjax import bench, checkpoint, family
from ganjax import config as configs
from ganjax import evaluate as evaluation
from ganjax.config import ConfigError
from ganjax.data.sources import open_source, read_options
from ganjax.evaluate import evaluate
from ganjax.metrics.classifier import train_classifier
from ganjax.metrics.frechet import Moments, distance
from ganjax.metrics.protocols import BY_NAME
from ganjax.subjects import models, pictures


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
        patch.setattr(bench, "train_classifier", short)
        yield


class Stub(models.Samples):
    """Samples that are real images of the classes asked, or of the next ones."""

    off = 0

    def batches(self, places):
        config = self.model.config.data
        reals = pictures.of_run(open_source(config), read_options(config), seed=1)
        images = np.concatenate(list(reals.batches(range(len(reals)))))
        labels = reals.asked(len(reals))
        of_class = [images[labels == (label + self.off) % 10] for label in range(10)]
        yield np.stack([of_class[i % 10][i // 10] for i in places])


def test_a_run_is_measured_and_the_record_kept(run, capsys):
    record = evaluate(run, ["class_accuracy", "fd_digits"], samples=40)
    again = evaluate(run, samples=40)  # all metrics
    assert record["metrics"] == again["metrics"]
    lines = (run / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record, again]
    assert record["step"] == 3 and record["seed"] == 0
    assert record["real"] == {"class_accuracy": 1797, "fd_digits": 1797}
    assert {protocol["fakes"] for protocol in record["protocols"].values()} == {40}
    assert len(record["weights"]["classifier"]) == 64
    assert record["versions"] == {"jax": jax.__version__, "ganjax": ganjax.__version__}
    # Nothing was learnt: chance, and far from real.
    assert record["metrics"]["class_accuracy"] < 0.4
    assert record["metrics"]["fd_digits"] > 10 * record["references"]["fd_digits"]["real_real"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("fd_digits") or printed[1].startswith("class_accuracy")
    assert printed[0].index("reference") + 9 == printed[1].index("held_out_real") - 2


@pytest.mark.parametrize(("off", "low", "high"), [(0, 0.9, 1.0), (1, 0.0, 0.1)])
def test_real_images_score_as_real_and_wrong_classes_as_wrong(off, low, high, run, monkeypatch):
    monkeypatch.setattr(Stub, "off", off)
    monkeypatch.setattr(evaluation, "Samples", Stub)
    record = evaluate(run, samples=800)
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
    with pytest.raises(ValueError, match="40 samples, but fid10k is of 10000"):
        evaluate(run, ["fid10k"], samples=40)
    monkeypatch.setenv("GANJAX_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(run))
    with pytest.raises(ValueError, match="GANJAX_OFFLINE.*\n.*weights-inception-2015-12-05"):
        evaluate(run, ["fid10k"])
    with pytest.raises(ValueError, match="no metric that needs no download; name some"):
        evaluation.check_metrics((), "folder")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders of pictures, and an Inception that sees eight random mixtures of pixels."""
    rng = np.random.default_rng(0)
    for name, count, low in (("real", 30, 0), ("fake", 21, 60)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = rng.integers(low, 256, (4, 4), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    mixing = rng.normal(size=(48 * 16, 8)).astype(np.float32) / 256
    passes = []

    class Network:
        variables, sha256 = mixing, "of mixing"

        def apply(self, variables, images, features):
            passes.append(images.shape)
            flat = images.reshape(len(images), -1).astype("float32")
            return dict.fromkeys(features, flat @ variables[: flat.shape[1]])

    monkeypatch.setattr(bench.catalog, "find", lambda name: None)
    monkeypatch.setattr(bench.catalog, "load", lambda name: Network())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path, mixing, passes


def test_a_run_is_measured_where_its_data_is_now(run, folders, monkeypatch):
    path, *_ = folders
    config = checkpoint.read_config(run).unlock()
    config.data.update(source="zip", path=str(path / "gone"))
    workdir = path / "run"
    shutil.copytree(run, workdir)
    (workdir / checkpoint.CONFIG).write_text(configs.to_json(config))
    few = dataclasses.replace(BY_NAME["fid50k_full"], fakes=20)
    monkeypatch.setitem(BY_NAME, "fid50k_full", few)
    colours = types.SimpleNamespace(variables=(), sha256="of colours")
    colours.apply = lambda variables, images, features: dict.fromkeys(
        features, images.astype("float32").mean((1, 2))
    )
    monkeypatch.setattr(bench.catalog, "load", lambda name: colours)
    with pytest.raises(FileNotFoundError, match="--config.data.path="):
        evaluate(workdir, ["fid50k_full"])
    here = {"data.source": "folder", "data.path": str(path / "real"), "data.threads": "0"}
    record = evaluate(workdir, ["fid50k_full"], overrides=here)
    assert record["real"] == {"fid50k_full": 30} and record["metrics"]["fid50k_full"] > 0
    assert checkpoint.read_config(workdir).data.path == config.data.path
    with pytest.raises(ConfigError, match="train.batch changes a run.*may differ: data.source"):
        evaluate(workdir, overrides={"train.batch": "4"})


def test_data_of_more_classes_than_the_run_has(run, folders):
    path, *_ = folders
    for label in range(11):
        (path / "many" / f"{label:02}").mkdir(parents=True)
        shutil.copy(path / "real" / "0.png", path / "many" / f"{label:02}")
    config = checkpoint.read_config(run).unlock()
    config.data.update(source="folder", path=str(path / "many"))
    measure = evaluation.Evaluation(config, open_source(config.data), ["is50k"])
    with pytest.raises(ValueError, match="class 10, and the run has classes 0 to 9; set"):
        measure._drawn_labels(100, 0)


def test_two_folders_are_compared_and_the_real_one_is_remembered(folders, capsys):
    path, mixing, passes = folders

    def moments(name):
        files = sorted((path / name).iterdir())
        images = np.stack([np.asarray(Image.open(file)) for file in files])
        rgb = np.repeat(images[..., None], 3, axis=-1).reshape(len(images), -1)
        return Moments.of(rgb.astype(np.float32) @ mixing[:48])

    record = evaluation.compare(path / "real", path / "fake", ["fid_all", "pr_all"])
    expected = distance(moments("real"), moments("fake"))
    assert record["metrics"]["fid_all"] == pytest.approx(expected, rel=1e-4)
    assert record["metrics"].keys() == {"fid_all", "pr_all_precision", "pr_all_recall"}
    assert record["weights"] == {"inception-2015-12-05": "of mixing", "vgg16": "of mixing"}
    assert "fid_all" in capsys.readouterr().out
    first = len(passes)
    again = evaluation.compare(path / "real", path / "fake", ["fid_all"])
    assert again["metrics"]["fid_all"] == record["metrics"]["fid_all"]
    assert len(passes) == first + 1  # the samples alone
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path / "real" / "3.png")
    changed = evaluation.compare(path / "real", path / "fake", ["fid_all"])
    expected = distance(moments("real"), moments("fake"))
    assert changed["metrics"]["fid_all"] == pytest.approx(expected, rel=1e-4)


def test_real_pictures_alone_have_a_reference(folders, monkeypatch):
    path, _, _ = folders
    one = dataclasses.replace(BY_NAME["reference_fid10k"], reals=20)
    monkeypatch.setitem(BY_NAME, "reference_fid10k", one)
    record = evaluation.compare(path / "real", None, ["reference_fid10k"])
    whole = evaluation.compare(path / "real", path / "fake", ["fid_all"])
    assert record["real"] == {"reference_fid10k": 20} and record["fake"] == {}
    # Of fewer pictures than the halves of all.
    assert record["metrics"]["reference_fid10k"] > whole["references"]["fid_all"]["real_real"]
    with pytest.raises(ValueError, match="fid_all compares two folders: give --fake"):
        evaluation.compare(path / "real", None, ["fid_all"])
    monkeypatch.setitem(BY_NAME, "reference_fid10k", dataclasses.replace(one, reals=31))
    with pytest.raises(ValueError, match="is of 31 real samples, and there are 30"):
        evaluation.compare(path / "real", None, ["reference_fid10k"])


def test_samples_alone_have_a_score(folders, monkeypatch):
    path, _, _ = folders
    few = dataclasses.replace(BY_NAME["is50k"], fakes=20, options={"splits": 2, "seed": 1})
    monkeypatch.setitem(BY_NAME, "is50k", few)
    record = evaluation.compare(None, path / "fake", ["is50k"])
    both = evaluation.compare(path / "real", path / "fake", ["is50k"])
    assert record["metrics"] == both["metrics"] and record["metrics"]["is50k"] > 1
    assert record["folders"] == {"fake": str(path / "fake")}
    assert record["source"] == {} and record["real"] == {"is50k": 0}
    with pytest.raises(ValueError, match="fid_all compares two folders: give --real as well"):
        evaluation.compare(None, path / "fake", ["fid_all"])


def test_too_few_pictures_and_metrics_of_runs_are_named(folders):
    path, _, _ = folders
    with pytest.raises(ValueError, match="fid10k is of 10000 samples, and there are 21"):
        evaluation.compare(path / "real", path / "fake", ["fid10k"])
    with pytest.raises(ValueError, match="fd_digits measures runs"):
        evaluation.compare(path / "real", path / "fake", ["fd_digits"])


def test_videos_are_compared_clip_by_clip_and_frame_by_frame(folders, monkeypatch):
    path, mixing, passes = folders
    rng = np.random.default_rng(1)
    videos = {}
    for name in ("real_videos", "fake_videos"):
        videos[name] = rng.integers(256, size=(5, 16, 4, 4, 3), dtype=np.uint8)
        for video, frames in enumerate(videos[name]):
            (path / name / str(video)).mkdir(parents=True)
            for time, frame in enumerate(frames):
                Image.fromarray(frame).save(path / name / str(video) / f"{time:03}.png")

    def moments(name, frames):
        flat = videos[name].reshape(-1, frames * 48).astype(np.float32)
        return Moments.of(flat @ mixing[: frames * 48])

    every = dataclasses.replace(BY_NAME["fid_video2048x16"], fakes=None)
    monkeypatch.setitem(BY_NAME, "fid_video2048x16", every)
    both = path / "real_videos", path / "fake_videos"
    record = evaluation.compare(*both, ["fvd_all_16f", "fid_video2048x16"])
    for metric, frames in (("fvd_all_16f", 16), ("fid_video2048x16", 1)):
        expected = distance(moments("real_videos", frames), moments("fake_videos", frames), ddof=0)
        assert record["metrics"][metric] == pytest.approx(expected, rel=1e-3)
    assert record["real"] == {"fvd_all_16f": 5, "fid_video2048x16": 80}
    # Batches of 64 frames, rounded up to the eight devices: not of 64 clips.
    assert set(passes) == {(8, 16, 4, 4, 3), (64, 4, 4, 3)}
    with pytest.raises(ValueError, match="fvd2048_16f is of 2048 samples, and there are 5"):
        evaluation.compare(*both, ["fvd2048_16f"])
    with pytest.raises(ValueError, match="need videos of 128 frames"):
        evaluation.compare(*both, ["fvd2048_128f"])
    with pytest.raises(FileNotFoundError, match="holds no videos"):
        evaluation.compare(path / "real", path / "fake", ["fvd_all_16f"])
    with pytest.raises(ConfigError, match="is of videos; this run makes images"):
        evaluation.check_metrics(["fvd2048_16f"], "digits")
