"""Prompts on the command line, of a run whose samples are looked up in a table."""

import dataclasses

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from configs import aurora as aurora_configs
from ganjax import generate, main
from ganjax.config import ConfigError
from ganjax.data.captions import Captioned
from ganjax.sampling.sheets import Sheet
from ganjax.subjects.pictures import tree_of
from ganjax.train import train
from tests.evaluate_texts_test import CONFIG, SIDE, TEXTS, model_of

PROMPTS = ["a red circle", "a blue star"]


def grid(bind, key, request):
    """A picture for each prompt, named by it."""
    drawn = TEXTS.draws(key, np.arange(len(request.prompts)), request)
    images = np.asarray(bind(request.truncation)(drawn))
    return Sheet(images, 1, (), request.prompts)


@pytest.fixture
def sampled(tmp_path, monkeypatch):
    """``sampled(*flags)`` runs ``--mode=sample`` and gives its folder of pictures."""
    model = model_of(PROMPTS, [np.full((SIDE, SIDE, 3), level, np.uint8) for level in (40, 200)])
    family = dataclasses.replace(TEXTS, sheets={"grid": grid})
    model = generate.Model(family, model.variables, CONFIG, 7)
    monkeypatch.setattr(generate, "load", lambda *args, **kwargs: model)

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["main"])

    def call(**values):
        with flagsaver.flagsaver(mode="sample", workdir=str(tmp_path / "run"), **values):
            main._sample({})
        return sorted((tmp_path / "run" / "samples").iterdir())

    return call


def test_titles_are_the_prompts(sampled, tmp_path, monkeypatch):
    drawn = []
    whole = generate.Model.draw
    monkeypatch.setattr(
        generate.Model, "draw", staticmethod(lambda sheet: drawn.append(sheet) or whole(sheet))
    )
    (tmp_path / "more.txt").write_text("a blue star\n")
    (file,) = sampled(prompt=["a red circle"], prompts=str(tmp_path / "more.txt"))
    assert file.name.startswith("grid-step7-seed0-a_red_circle-")
    assert drawn[0].row_titles == tuple(PROMPTS)
    levels = np.asarray(drawn[0].images).mean(axis=(1, 2, 3))
    np.testing.assert_allclose((levels + 1) * 127.5, [40, 200], atol=1)
    assert len(sampled(prompt=["a blue star"])) == 2, "other prompts, another file"


def test_single_pictures_have_their_prompts_beside_them(sampled):
    (folder,) = sampled(prompt=PROMPTS, n=3)
    found = Captioned(tree_of(folder))
    captions = [found[i]["caption"] for i in range(len(found))]
    assert captions == ["a red circle", "a blue star", "a red circle"]
    levels = [np.asarray(Image.open(folder / f"00000{i}.png")).mean() for i in range(3)]
    np.testing.assert_allclose(levels, [40, 200, 40], atol=1)


@pytest.mark.parametrize("values", [dict(fps=10.0), dict(start=3.0, n=2), dict(seconds=1.0)])
def test_pictures_have_no_times(values, sampled):
    with pytest.raises(ConfigError, match="is of videos, and pictures were asked for; leave it"):
        sampled(**values)


@pytest.mark.parametrize(
    "values, said",
    [
        (dict(prompt=["a red dragn"]), "'dragn'.* there are a, above"),
        (dict(prompt=["a rod circle"]), r"'rod' \(near it: .*red"),
        (dict(prompt=["a red circle " * 7]), "has 21 words, there is room for 18; shorten it"),
        (dict(prompts="nowhere.txt"), "no such file"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_an_error(values, said, sampled, tmp_path):
    with pytest.raises(ValueError, match=said):
        sampled(**values)
    assert not (tmp_path / "run").exists()


def test_families_without_texts_take_no_prompts(sampled):
    blind = dataclasses.replace(TEXTS, item={"image": TEXTS.item["image"]})
    config = CONFIG.copy_and_resolve_references()
    config.family = "families.blind"
    model = generate.Model(blind, {}, config, 1)
    with pytest.raises(ValueError, match="families.blind does not draw what texts say"):
        model.sample(1, prompts=["a red circle"])
    assert model.checked(()) == ()


def test_a_run_takes_other_fields_than_those_of_sampling_from_its_own_config(sampled):
    with pytest.raises(ConfigError, match="data.text changes a run"):
        main._sample({"data.text": "x"})


def test_a_run_whose_pictures_nobody_can_draw_does_not_begin(tmp_path):
    config = aurora_configs.tiny()
    config.sample.prompts = ("a red circle", "a red dragon")
    with pytest.raises(ValueError, match="'a red dragon' has words .*'dragon'"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "samples").exists()
