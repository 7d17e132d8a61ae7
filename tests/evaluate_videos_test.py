"""Measuring videos: a run whose family makes clips, repeats, frames, JPEG; and captions.

The family here makes clips by a formula: it stands for those of videos in every way that
evaluating one can tell.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from PIL import Image

from ganjax import bench, evaluate, generate
from ganjax.adversarial.state import Ema
from ganjax.config import ConfigError
from ganjax.data.sources import Options
from ganjax.data.transforms import BrokenItem
from ganjax.family import Family
from ganjax.metrics.clips import real_clips, window_clips
from ganjax.metrics.frechet import Moments, distance
from ganjax.metrics.protocols import BY_NAME, Clip
from ganjax.subjects import models, videos
from tests.pretrained.tokens_test import MERGES, vocabulary

SIDE = 8


def sample(variables, draws):
    """Grey that rises with time, from a level of its own and a step of its class."""
    level = draws["z"] + draws["times"] * 0.01 * (1 + draws["label"][:, None])
    return jnp.broadcast_to(
        level[..., None, None, None] * variables["gain"], (*level.shape, 8, 8, 3)
    )


def draws(key, indices, request):
    assert request.times, "a metric of videos says which frames"
    z = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (1,), minval=-1))(indices)
    times = jnp.broadcast_to(
        jnp.array(request.times, jnp.float32), (len(indices), len(request.times))
    )
    return {"z": z, "times": times, "label": indices % 2}


CLIPS = Family(
    networks={},
    inputs={},
    phases=(),
    optimizers={},
    ema=Ema(lambda step, items: 0.0),
    item={"clip": jax.ShapeDtypeStruct((3, SIDE, SIDE, 3), np.uint8)},
    draws=draws,
    sample=sample,
    sheets={},
)
CONFIG = ml_collections.ConfigDict(
    dict(data=dict(source="shapes", resolution=SIDE, channels=3, classes=2, threads=1))
)


@dataclasses.dataclass(frozen=True)
class Video:
    name: str
    pixels: np.ndarray
    rate: float = 0.0

    def __len__(self):
        return len(self.pixels)

    def read(self, frames):
        if "torn" in self.name:
            raise BrokenItem(f"{self.name}: torn")
        return self.pixels[frames]


class Videos:
    """Eleven videos of their own lengths, of two classes, twice as large as the run sees them."""

    name, classes = "eleven videos", ("a", "b")

    def __init__(self, names="abcdefghijk"):
        rng = np.random.default_rng(0)
        self._videos = [
            Video(
                name,
                rng.integers(256, size=(18 + i, 1, 1, 3), dtype=np.uint8)
                .repeat(16, 1)
                .repeat(16, 2),
            )
            for i, name in enumerate(names)
        ]

    def __len__(self):
        return len(self._videos)

    def __getitem__(self, index):
        return {"video": self.video(index), "label": np.int32(index % 2)}

    def video(self, index):
        return self._videos[index]

    def describe(self, index):
        return self._videos[index].name

    def fingerprint(self):
        return "videos-of-a-test"


class Means:
    """In place of I3D and Inception: the mean colour of clips or images, and its square."""

    variables, sha256 = (), "of means"

    def apply(self, variables, samples, features):
        means = samples.astype("float32").mean(tuple(range(1, samples.ndim - 1))) / 255
        return dict.fromkeys(features, jnp.concatenate([means, means**2], axis=1))


def means(samples):
    found = samples.astype(np.float32).mean(tuple(range(1, samples.ndim - 1))) / 255
    return Moments.of(np.concatenate([found, found**2], axis=1))


@pytest.fixture(autouse=True)
def stand_ins(tmp_path, monkeypatch):
    monkeypatch.setattr(bench.catalog, "find", lambda name: None)
    monkeypatch.setattr(bench.catalog, "load", lambda name: Means())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def few(monkeypatch, name, **changes):
    protocol = dataclasses.replace(BY_NAME[name], **changes)
    monkeypatch.setitem(BY_NAME, name, protocol)
    return protocol


def model():
    variables = {"gain": jnp.float32(0.8)}
    return generate.Model(CLIPS, variables, CONFIG, step=5)


def made(count, frames, stride=1, seed=0, labels=None):
    """Bytes of clips as the family's formula gives them."""
    indices = np.arange(count) if labels is None else np.arange(count) * 2 + labels
    request = generate.Request(times=tuple(range(0, frames * stride, stride)))
    drawn = draws(jax.random.key(seed), jnp.asarray(indices), request)
    images = np.asarray(sample({"gain": 0.8}, drawn))
    return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)


def test_a_run_of_videos_is_measured_by_clips_and_by_frames(monkeypatch):
    few(monkeypatch, "fvd2048_128f_subsample8f", clip=Clip(6, 2), fakes=10, labels="even")
    few(monkeypatch, "fid50k_video", clip=Clip(3, reals="frames"), fakes=7, labels="even")
    source = Videos()
    metrics = ["fvd2048_128f_subsample8f", "fid50k_video"]
    record = evaluate.Evaluation(CONFIG, source, metrics, family=CLIPS)(model())
    small = [source.video(i).pixels[:, ::2, ::2] for i in range(11)]
    chosen = real_clips([len(video) for video in small], 6, 2, 2048, 0)
    reals = np.stack([small[v][f] for v, f in zip(chosen.videos, chosen.frames)])
    expected = distance(means(reals), means(made(10, 6, 2)), ddof=0)
    assert record["metrics"][metrics[0]] == pytest.approx(expected, rel=1e-4)
    expected = distance(
        means(np.concatenate(small)), means(made(7, 3).reshape(-1, SIDE, SIDE, 3)), ddof=0
    )
    assert record["metrics"][metrics[1]] == pytest.approx(expected, rel=1e-4)
    assert record["real"] == {metrics[0]: 11, metrics[1]: sum(range(18, 29))}
    assert list(record["metrics"]) == metrics and record["step"] == 5
    assert json.loads(json.dumps(record))["protocols"][metrics[0]]["clip"]["stride"] == 2


def test_a_run_on_shapes_is_measured_without_a_download(monkeypatch):
    names = evaluate.metric_names("shapes", CLIPS)
    assert names == ("fd_shape_clips", "frame_difference")
    of_means = bench._Network(lambda v, clips: Means().apply(v, clips, ["features"]), (), "means")
    monkeypatch.setattr(bench, "_shape_clips", lambda: of_means)
    source = Videos()
    record = evaluate.Evaluation(CONFIG, source, samples=9, family=CLIPS)(model())
    small = [source.video(i).pixels[:, ::2, ::2] for i in range(11)]
    chosen = real_clips([len(video) for video in small], 16, 1, 2000, 0)
    reals = np.stack([small[v][f] for v, f in zip(chosen.videos, chosen.frames)])
    fakes = made(9, 16)
    differences = [np.abs(np.diff(clips.astype(float), axis=1)).mean() for clips in (fakes, reals)]
    found = record["metrics"]
    assert found["fd_shape_clips"] == pytest.approx(
        distance(means(reals), means(fakes), ddof=1), rel=1e-4
    )
    assert found["frame_difference"] == pytest.approx(differences[0], rel=1e-5)
    real = record["references"]["frame_difference"]["real"]
    assert real == pytest.approx(differences[1], rel=1e-5) and real > differences[0] > 0.1
    assert evaluate.rank(record) == found["fd_shape_clips"]
    alone = record | {"metrics": {"frame_difference": found["frame_difference"]}}
    assert evaluate.rank(alone) == pytest.approx(real - found["frame_difference"])
    # What was seen of the real ones is kept for the next time.
    monkeypatch.setattr(videos.VideoClips, "batches", lambda self, places: iter(()))
    again = evaluate.Evaluation(CONFIG, source, samples=9, family=CLIPS)(model())
    assert again["metrics"] == found


def test_the_network_of_clips_is_trained_once(monkeypatch):
    monkeypatch.setattr(bench, "SHAPE_VIDEOS", 3)
    trained = bench.shape_clips.train
    monkeypatch.setattr(bench.shape_clips, "train", lambda *known: trained(*known, steps=1))
    first = bench._shape_clips()
    monkeypatch.setattr(bench.shape_clips, "train", None)
    second = bench._shape_clips()
    assert first.sha256 == second.sha256
    features = second.function(second.variables, jnp.asarray(made(2, 16)))["features"]
    assert features.shape == (2, 64)


def test_labels_are_those_of_all_videos_at_random(monkeypatch):
    few(monkeypatch, "fvd2048_16f", clip=Clip(4), reals=2, fakes=40)
    seen = []
    batches = models.Samples.batches

    def watched(self, places):
        seen.append(self.asked(40))
        return batches(self, places)

    monkeypatch.setattr(models.Samples, "batches", watched)
    source = Videos()
    monkeypatch.setattr(Videos, "__getitem__", lambda self, index: {"label": np.int32(index > 1)})
    evaluate.Evaluation(CONFIG, source, ["fvd2048_16f"], family=CLIPS)(model())
    (labels,) = seen
    assert 20 < labels.sum() < 40  # though both real clips are of class 0


def test_repeats_have_seeds_of_their_own_and_a_deviation(monkeypatch):
    few(
        monkeypatch,
        "fvd2048_16f_digan",
        clip=Clip(5, reals="windows"),
        reals=20,
        fakes=9,
        repeats=3,
        labels="even",
    )
    source = Videos()
    evaluation = evaluate.Evaluation(CONFIG, source, ["fvd2048_16f_digan"], seed=4, family=CLIPS)
    record = evaluation(model())
    small = [source.video(i).pixels[:, ::2, ::2] for i in range(11)]
    expected = []
    for seed in (4, 5, 6):
        chosen = window_clips([len(video) for video in small], 5, 1, 20, seed)
        reals = np.stack([small[v][f] for v, f in zip(chosen.videos, chosen.frames)])
        expected.append(distance(means(reals), means(made(9, 5, seed=seed)), ddof=1))
    assert record["metrics"]["fvd2048_16f_digan"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert record["spread"]["fvd2048_16f_digan"] == pytest.approx(np.std(expected), rel=1e-3)
    assert record["protocols"]["fvd2048_16f_digan"]["repeats"] == 3 and record["seed"] == 4
    assert "+-" in evaluate.table(record)
    again = evaluation(model())  # as the next evaluation of a training run does
    assert again["metrics"] == record["metrics"]


def test_other_real_samples_need_no_other_networks(monkeypatch):
    protocol = few(monkeypatch, "fvd2048_16f_digan", clip=Clip(5, reals="windows"), reals=20)
    seen = videos.Seen(Videos())
    benches = [bench.Bench(videos.real(seen, protocol, 20, 0), [protocol], 0)]
    reals = [next(iter(benches[0]._real.values())).whole.mean]
    benches.append(benches[0].again(videos.real(seen, protocol, 20, 1), 1))
    reals.append(next(iter(benches[1]._real.values())).whole.mean)
    assert not np.array_equal(*reals) and benches[1]._networks is benches[0]._networks


def test_frames_are_rounded_and_kept_as_the_protocol_says():
    exact = made(3, 4)
    (down,) = models.Samples(model(), clip=Clip(4, rounding="down")).batches(range(3))
    assert (exact.astype(int) - down >= 0).all() and 0 < (exact != down).mean() < 1
    (through,) = models.Samples(model(), clip=Clip(4, jpeg=5)).batches(range(3))
    assert through.shape == exact.shape and (through != exact).any()
    noise = np.random.default_rng(0).integers(256, size=(1, 2, 16, 16, 1), dtype=np.uint8)
    near, far = (models.through_jpeg(noise, quality) for quality in (95, 5))
    errors = [np.abs(noise.astype(int) - kept).mean() for kept in (near, far)]
    assert 0 < errors[0] < 4 < errors[1]


def test_every_frame_is_seen_once_wherever_a_share_begins(monkeypatch):
    monkeypatch.setattr(videos, "FRAMES_CHUNK", 7)
    monkeypatch.setattr(videos, "CLIPS_CHUNK", 2)
    source = Videos()
    every = videos.EveryFrame(videos.Seen(source))
    whole = np.concatenate([source.video(i).pixels for i in range(11)])
    assert len(every) == len(whole)
    for places in (range(len(whole)), range(17, 40), range(18, 19)):
        found = np.concatenate(list(every.batches(places)))
        np.testing.assert_array_equal(found, whole[places.start : places.stop])
    assert every.describe(18).startswith("frame 0 of b of eleven")


def test_mistakes_of_videos_are_named(monkeypatch):
    with pytest.raises(ConfigError, match="'fid50k' is of images; this run makes videos"):
        evaluate.check_metrics(["fid50k"], "shapes", CLIPS)
    with pytest.raises(ValueError, match="no metric that needs no download"):
        evaluate.check_metrics([], "folder", CLIPS)
    with pytest.raises(ConfigError, match="'fd_shape_clips' is not for runs on folder"):
        evaluate.check_metrics(["fd_shape_clips"], "folder", CLIPS)
    with pytest.raises(ConfigError, match="pictures and their captions; this run makes none"):
        evaluate.check_metrics(["clip_score_b32"], "shapes")
    few(monkeypatch, "fvd2048_16f", clip=Clip(4), reals=5, fakes=4)
    with pytest.raises(ValueError, match="eleven videos: torn: torn; mend it"):
        torn = Videos(["a", "torn"])
        evaluate.Evaluation(CONFIG, torn, ["fvd2048_16f"], family=CLIPS)(model())
    with pytest.raises(ValueError, match="samples of step 5 are of .4, 8, 8, 3., .* clips of 3"):
        still = dataclasses.replace(
            CLIPS,
            draws=lambda key, indices, request: draws(
                key, indices, dataclasses.replace(request, times=(0, 1, 2, 3))
            ),
        )
        wrong = generate.Model(still, {"gain": jnp.float32(1)}, CONFIG, 5)
        next(models.Samples(wrong, clip=Clip(3)).batches(range(2)))
    options = Options(source="shapes", resolution=(SIDE, SIDE))
    with pytest.raises(ValueError, match="need videos of 128 frames, but the longest of 11 has 28"):
        videos.real(videos.of_run(Videos(), options), BY_NAME["fvd2048_128f"], 5)


class Words:
    """In place of CLIP: the mean colour of a picture; how often three tokens are in its caption."""

    variables, sha256 = (), "of words"

    def apply(self, variables, samples, features):
        image = samples["image"].astype("float32").mean((1, 2)) + 1
        counts = [(samples["tokens"] == vocabulary()[f"{letter}</w>"]).sum(1) for letter in "rgb"]
        text = jnp.stack(counts, axis=1).astype("float32") + 0.1
        return dict.fromkeys(features, jnp.stack([image, text], axis=1))


@pytest.fixture
def captioned(tmp_path, monkeypatch):
    """Red, green and blue pictures of several sizes, their captions, and a vocabulary."""
    folder = tmp_path / "captioned"
    folder.mkdir()
    for index, (letter, colour) in enumerate(zip("rgb", np.eye(3) * 255)):
        size = (9 + index, 5 + 2 * index)
        Image.new("RGB", size, tuple(colour.astype(int))).save(folder / f"{letter}.png")
        (folder / f"{letter}.txt").write_text(f" {letter} {letter.upper()}\n")
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "vocab.json").write_text(json.dumps(vocabulary()))
    (weights / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]))
    monkeypatch.setenv("GANJAX_WEIGHTS", str(weights))
    monkeypatch.setattr(bench.catalog, "load", lambda name: Words())
    return folder


def test_captions_of_a_folder_are_scored(captioned, capsys):
    record = evaluate.compare(
        captioned, None, ["clip_score_b32", "clip_s_b32", "clip_score100_l14"]
    )
    image = np.ones((3, 3)) + 255 * np.eye(3)
    text = np.full((3, 3), 0.1) + 2 * np.eye(3)
    cosine = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    assert record["metrics"]["clip_score_b32"] == pytest.approx(cosine.mean(), rel=1e-4)
    assert record["metrics"]["clip_score100_l14"] == pytest.approx(100 * cosine.mean(), rel=1e-4)
    # The template's words have no single r, g or b.
    assert record["metrics"]["clip_s_b32"] == pytest.approx(2.5 * cosine.mean(), rel=1e-4)
    assert record["real"]["clip_score_b32"] == 3 and "clip_score_b32" in capsys.readouterr().out
    (captioned / "r.txt").write_text("g g")
    worse = evaluate.compare(captioned, None, ["clip_score_b32"])  # not the cached one
    assert worse["metrics"]["clip_score_b32"] < 0.8 * cosine.mean()


def test_mistakes_of_captions_are_named(captioned, monkeypatch):
    (captioned / "g.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"g.png of .* is broken .g.txt: not UTF-8"):
        evaluate.compare(captioned, None, ["clip_score_b32"])
    (captioned / "g.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"g.png of .* is broken .g.txt: empty"):
        evaluate.compare(captioned, None, ["clip_score_b32"])
    (captioned / "g.txt").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 pictures have no caption, such as g.png"):
        evaluate.compare(captioned, None, ["clip_score_b32"])
    for file in captioned.glob("*.png"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no pictures .2 other files"):
        evaluate.compare(captioned, None, ["clip_score_b32"])
    monkeypatch.setenv("GANJAX_WEIGHTS", str(captioned))
    with pytest.raises(ValueError, match="clip-vit-b-32 needs its vocabulary.*\n.*GANJAX_WEIGHTS"):
        evaluate.compare(captioned, None, ["clip_score_b32"])
