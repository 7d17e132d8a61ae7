"""Measuring runs whose samples texts are asked for, by a family that looks them up in a table."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ganjax import bench, evaluate, generate
from ganjax.adversarial.state import Ema
from ganjax.config import ConfigError
from ganjax.data.captioned_shapes import COMBINATIONS, CaptionedShapes, draw
from ganjax.data.transforms import BrokenItem
from ganjax.family import Family, Request
from ganjax.metrics import classifier
from ganjax.metrics.protocols import BY_NAME
from ganjax.pretrained import catalog, clip_shapes
from ganjax.subjects import captioned_shapes, pictures
from ganjax.subjects.captioned_shapes import HeldOut

SIDE = 16
COUNT = 24


def draws(key, indices, request):
    """Where a sample's prompt lies among all prompts of the table."""
    assert request.prompts, "who measures such a run says what is asked"
    known = {prompt: place for place, prompt in enumerate(TABLE["prompts"])}
    places = jnp.array([known[prompt] for prompt in request.prompts])
    return {"place": places[indices % len(places)]}


def sample(variables, drawn):
    return variables["table"][drawn["place"]] / 127.5 - 1


TEXTS = Family(
    networks={},
    inputs={},
    phases=(),
    optimizers={},
    ema=Ema(lambda step, items: 0.0),
    item={
        "image": jax.ShapeDtypeStruct((SIDE, SIDE, 3), np.uint8),
        "tokens": jax.ShapeDtypeStruct((clip_shapes.CONTEXT,), np.int32),
    },
    draws=draws,
    sample=sample,
    sheets={},
)
CONFIG = ml_collections.ConfigDict(
    dict(
        data=dict(
            source="captioned_shapes",
            text="clip-shapes",
            resolution=SIDE,
            channels=3,
            classes=1,
            threads=1,
            path="",
            split="train",
            name="",
        )
    )
)
TABLE: dict = {}


def model_of(prompts, images):
    TABLE["prompts"] = prompts
    variables = {"table": jnp.asarray(np.stack(images), jnp.float32)}
    return generate.Model(TEXTS, variables, CONFIG, 1)


class Levels:
    """In place of a classifier: it reads the combination from the brightness."""

    params, accuracy = {}, 0.875

    class network:
        @staticmethod
        def apply(variables, images):
            found = jnp.round(images.max(axis=(1, 2, 3)) / 5).astype(jnp.int32)
            return None, jax.nn.one_hot(found, len(COMBINATIONS))


@pytest.fixture(autouse=True)
def stand_ins(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bench, "classifier", lambda *args: Levels())


def flat(combination):
    return np.full((SIDE, SIDE, 3), 5 * COMBINATIONS.index(combination), np.uint8)


def measured(model, metrics, source=None, **options):
    return evaluate.Evaluation(CONFIG, source, metrics, COUNT, family=TEXTS, **options)(model)


def test_prompts_are_answered_by_colour_and_shape():
    scenes = HeldOut((SIDE, SIDE), 2).scenes(COUNT)
    prompts = [scene.caption for scene in scenes]
    right = measured(model_of(prompts, [flat(s.combination) for s in scenes]), ["prompt_accuracy"])
    assert right["metrics"] == dict.fromkeys(
        ("prompt_accuracy", "prompt_accuracy_color", "prompt_accuracy_shape"), 1.0
    )
    asked = np.array([COMBINATIONS.index(scene.combination) for scene in scenes])
    chance = pytest.approx((asked[:, None] == asked).mean())
    assert right["references"]["prompt_accuracy"] == {
        "chance": chance,
        "chance_color": chance,  # each colour is held out with one shape
        "chance_shape": chance,
        "held_out_real": 0.875,
    }
    assert right["protocols"]["prompt_accuracy"]["prompts"] == "heldout"
    # The colour is right, the shape is the next one; so nothing is ever what anybody asked for.
    wrong = [flat((s.combination[0], _next(s.combination[1]))) for s in scenes]
    found = measured(model_of(prompts, wrong), ["prompt_accuracy"])
    assert list(found["metrics"].values()) == [0, 1, 0]
    assert found["references"]["prompt_accuracy"]["chance"] == 0
    assert found["references"]["prompt_accuracy"]["chance_color"] == chance
    lines = {line.split()[0]: line.split()[1:4] for line in evaluate.table(found).splitlines()}
    assert lines["prompt_accuracy"] == ["0", "0", "chance"]
    assert lines["prompt_accuracy_color"][2] == "chance_color"
    assert evaluate.rank(found) == 0 > evaluate.rank(right)


def _next(shape):
    shapes = list(dict.fromkeys(shape for _, shape in COMBINATIONS))
    return shapes[(shapes.index(shape) + 1) % len(shapes)]


def test_only_the_half_that_the_prompt_names_is_looked_at():
    scenes = HeldOut((SIDE, SIDE), 2).scenes(400)
    chosen = {scene.relation: scene for scene in scenes}
    assert set(chosen) == {"", "left", "right", "above", "below"}
    image = np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(SIDE, SIDE, 3) // 2 + 1
    for relation, scene in chosen.items():
        seen = captioned_shapes._part(image, scene)
        shown = (seen > 0).all(axis=2)
        np.testing.assert_array_equal(seen[shown], image[shown])
        assert shown.mean() == (0.5 if relation else 1)
        first = scene.things[0]
        row, column = round(SIDE / 2 * (1 - first.y)), round(SIDE / 2 * (1 + first.x))
        assert shown[row, column], "the first thing is in it"


def test_clip_scores_are_of_right_and_of_shuffled_prompts(monkeypatch):
    """With a CLIP that was trained for a moment, pictures that fit are nearer to their prompts."""
    training = clip_shapes.Training(items=256, steps=60, batch=32)
    variables = clip_shapes.train(training, show=False)
    network = catalog.clip.ClipNetwork(
        "clip-shapes", clip_shapes.KIND, variables, tokenizer=clip_shapes.tokenizer()
    )
    monkeypatch.setattr(bench.catalog, "find", lambda name: None)
    monkeypatch.setattr(bench.catalog, "load", lambda name: network)
    scenes = HeldOut((SIDE, SIDE), 2).scenes(COUNT)
    model = model_of([s.caption for s in scenes], [draw(s, (SIDE, SIDE)) for s in scenes])
    found = measured(model, ["clip_score_shapes"])
    shuffled = found["references"]["clip_score_shapes"]["shuffled"]
    assert found["metrics"]["clip_score_shapes"] > shuffled + 0.1
    # By hand, from the very pictures.
    shown = {scene.caption: draw(scene, (SIDE, SIDE)) for scene in scenes}
    images = [shown[scene.caption] for scene in scenes]
    cropped = catalog.clip.crop_on_host(images, clip_shapes.SIZE)
    pairs = network.apply(
        variables,
        {
            "image": jnp.asarray(cropped),
            "tokens": jnp.asarray(network.tokenizer([scene.caption for scene in scenes])),
        },
    )["embeddings"]
    one, other = (np.asarray(catalog.clip.unit(pairs[:, i])) for i in (0, 1))
    expected = (one * other).sum(1).mean()
    np.testing.assert_allclose(found["metrics"]["clip_score_shapes"], expected, atol=1e-4)


class Captions:
    """Pictures whose captions say their number; one is broken, one has two captions."""

    name, classes = "captions of a test", ()

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if index == 3:
            raise BrokenItem("torn")
        image = np.full((SIDE, SIDE, 3), index, np.uint8)
        captions = (f"number {index}", f"picture {index}") if index == 5 else f"number {index}"
        return {"image": image, "caption": captions, "label": np.int32(0)}

    def fingerprint(self):
        return "captions-of-a-test"


class Means:
    """In place of CLIP and Inception."""

    variables, sha256 = (), "of means"

    def apply(self, variables, samples, features):
        means = samples.astype("float32").mean((1, 2)) / 255
        return dict.fromkeys(features, jnp.concatenate([means, means**2], axis=1))


@pytest.mark.parametrize("name", ["fd_captioned_shapes", "fid30k_coco", "fid10k_train"])
def test_samples_are_asked_for_the_captions_of_real_pictures(name, monkeypatch):
    monkeypatch.setattr(bench.catalog, "find", lambda name: None)
    monkeypatch.setattr(bench.catalog, "load", lambda name: Means())
    few = dataclasses.replace(BY_NAME[name], reals=COUNT, fakes=COUNT)
    monkeypatch.setitem(BY_NAME, name, few)
    with pytest.warns(UserWarning, match="is left out: torn"):
        source, config = Captions(), CONFIG.copy_and_resolve_references()
        config.data.max_broken = 1
        options = evaluate.read_options(config.data)
        prompts = pictures.of_run(source, options).captions(COUNT)
        assert len(prompts) == COUNT and sum(p.startswith("picture") for p in prompts) <= 1
        numbers = sorted(int(prompt.split()[1]) for prompt in prompts)
        assert set(range(COUNT)) - set(numbers) == {3} and len(numbers) == COUNT
        images = [np.full((SIDE, SIDE, 3), int(p.split()[1]), np.uint8) for p in prompts]
        model = model_of(list(prompts), images)
        found = evaluate.Evaluation(config, source, [name], family=TEXTS)(model)
    assert found["metrics"][name] < 1e-6, "each sample is the real picture that it was asked for"


def test_metrics_fit_runs_that_texts_are_asked_of():
    names = ("fd_captioned_shapes", "prompt_accuracy", "clip_score_shapes")
    assert evaluate.check_metrics((), "captioned_shapes", TEXTS) == names
    blind = dataclasses.replace(TEXTS, item={"image": TEXTS.item["image"]})
    assert evaluate.check_metrics((), "captioned_shapes", blind) == names[:1]
    for family, source, name, said in (
        (blind, "captioned_shapes", "prompt_accuracy", "makes none from texts"),
        (blind, "folder", "clip_score30k_b32", "this run makes none"),
        (TEXTS, "folder", "clip_score_b32", "Of runs there are clip_score30k_b32"),
        (TEXTS, "folder", "prompt_accuracy", "not for runs on folder"),
    ):
        with pytest.raises(ConfigError, match=said):
            evaluate.check_metrics([name], source, family)
    assert evaluate.check_metrics(["clip_score30k_b32"], "folder", TEXTS)
    chosen = [BY_NAME["clip_score30k_b32"]]
    assert evaluate.needs_data(chosen, CONFIG, TEXTS) and not evaluate.needs_data(chosen, CONFIG)
    assert not evaluate.needs_data([BY_NAME["prompt_accuracy"]], CONFIG, TEXTS)
    with pytest.raises(ValueError, match="measures runs on built-in data"):
        evaluate.compare("a", "b", ["prompt_accuracy"])


def test_data_without_captions_is_an_error():
    class Plain(Captions):
        def __getitem__(self, index):
            return {"image": np.zeros((SIDE, SIDE, 3), np.uint8), "label": np.int32(0)}

    model = model_of(["a"], [np.zeros((SIDE, SIDE, 3), np.uint8)])
    evaluation = evaluate.Evaluation(CONFIG, Plain(), ["prompt_accuracy"], COUNT, family=TEXTS)
    with pytest.raises(ValueError, match="has no captions, which this run's samples"):
        evaluation._prompted(model, BY_NAME["fid10k_train"], 0, COUNT)


def test_a_run_is_measured_on_other_captions(monkeypatch, tmp_path):
    """Zero-shot: what it was trained on is not what it is measured on."""
    seen = {}

    class Once:
        def __init__(self, config, source, *args):
            seen.update(source=source, path=config.data.path)

        def __call__(self, model):
            return {"metrics": {}}

    config = CONFIG.copy_and_resolve_references()
    config.data.update(source="folder", path="somewhere")
    model = types.SimpleNamespace(family=TEXTS, config=config.lock())
    monkeypatch.setattr(evaluate.generate, "load", lambda *args: model)
    monkeypatch.setattr(evaluate, "Evaluation", Once)
    monkeypatch.setattr(evaluate, "table", lambda record: "")
    other = {"data.source": "captioned_shapes", "data.split": "heldout"}
    evaluate.evaluate(tmp_path, ["fid30k_coco"], overrides=other)
    assert isinstance(seen["source"], CaptionedShapes) and seen["source"].split == "heldout"
    assert seen["path"] == ""
    with pytest.raises(ConfigError, match="data.resolution changes a run"):
        evaluate.evaluate(tmp_path, ["fid30k_coco"], overrides={"data.resolution": "8"})


def test_the_classifier_is_trained_once(monkeypatch, tmp_path):
    monkeypatch.setattr(captioned_shapes, "PICTURES", 400)
    monkeypatch.setattr(captioned_shapes, "STEPS", 120)
    made = captioned_shapes.classifier((SIDE, SIDE), 1, tmp_path)
    assert made.held_out == 80 and made.accuracy > 3 / len(COMBINATIONS), "chance: 1/48"
    monkeypatch.setattr(captioned_shapes, "train_classifier", None)
    again = captioned_shapes.classifier((SIDE, SIDE), 1, tmp_path)
    assert again.accuracy == made.accuracy
    images = np.random.default_rng(0).integers(256, size=(3, SIDE, SIDE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again.features(images), made.features(images))
    assert classifier.FEATURES == again.features(images).shape[1]


def test_nobody_asks_without_prompts():
    with pytest.raises(AssertionError, match="says what is asked"):
        draws(None, jnp.arange(2), Request())
