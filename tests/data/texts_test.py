"""Texts that are embedded while records are written, by a tiny CLIP whose weights are drawn."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from ganjax.data import texts
from ganjax.data.pipeline import Stream
from ganjax.data.prepare import main, prepare
from ganjax.data.recipes import Recipe
from ganjax.data.records import Records, pack, unpack
from ganjax.data.sources import make_transform, open_source, read_options
from ganjax.data.transforms import Encoded
from ganjax.pretrained import catalog, clip_shapes
from ganjax.pretrained.clip import ClipNetwork
from tests.data.pictures import encoded, write_folder
from tests.data.sources_test import data

SHAPE = (clip_shapes.CONTEXT, clip_shapes.MODULE.text.width)


@pytest.fixture(scope="module")
def network():
    variables = jax.tree.map(np.asarray, clip_shapes._init(0))
    return ClipNetwork(
        clip_shapes.NAME,
        clip_shapes.KIND,
        variables,
        catalog.digest(variables),
        clip_shapes.tokenizer(),
    )


@pytest.fixture
def loaded(network, monkeypatch):
    texts._network.cache_clear()
    monkeypatch.setattr(catalog, "load", lambda name: network)
    monkeypatch.setattr(texts, "BATCH", 4)
    yield network
    texts._network.cache_clear()


@pytest.fixture
def folder(tmp_path):
    path = write_folder(tmp_path / "pictures", {f"{i}.png": i for i in range(6)})
    for number in range(6):
        words = "a green dragon" if number == 3 else "a red circle" + " left of a star" * number
        (path / f"{number}.txt").write_text(words)
    return path


def records_of(folder, out, *more):
    start = ["--source=folder", f"--path={folder}", f"--out={out}", "--resolution=4"]
    assert main([*start, "--workers=0", "--text=clip-shapes", *more]) == 0
    return out


def fields_of(out, **more):
    fields = dict(source="records", path=str(out), resolution=4, channels=1)
    return data(**fields, text="clip-shapes", embedded=True, **more)


def test_records_keep_what_the_tower_says(folder, loaded, tmp_path, capsys):
    config = fields_of(records_of(folder, tmp_path / "out"))
    said = capsys.readouterr()
    assert "3.png" in said.err and "'dragon'" in said.err, "and what cannot be read is left out"
    assert "--config.data.embedded=True" in said.out
    assert "--config.data.text=clip-shapes" in said.out
    source = open_source(config)
    assert len(source) == 5
    batch = next(Stream(source, make_transform(read_options(config)), shape=(1, 1, 5), seed=0,
                        threads=0))  # fmt: skip
    assert batch["text_states"].shape == (1, 1, 5, *SHAPE)
    assert batch["text_states"].dtype == np.float16
    live = loaded.text(np.asarray(batch["tokens"][0, 0]))["text_hidden"]
    np.testing.assert_allclose(batch["text_states"][0, 0], live, atol=2e-3)
    assert np.abs(np.diff(np.asarray(live), axis=0)).max() > 0.1, "texts differ"
    # The same records without them.
    plain = data(**{**vars(config), "embedded": False})
    item = make_transform(read_options(plain))(source[0], np.random.default_rng(0))
    assert set(item) == {"image", "label", "tokens"}
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["origin"]["text"] == "clip-shapes"
    assert index["origin"]["sha256"] == loaded.sha256


def test_one_of_several_captions_comes_with_its_states(loaded):
    """Batches go over the borders of items and of shards."""

    class Several:
        name, classes = "several", ()

        def __len__(self):
            return 5

        def __getitem__(self, index):
            raise AssertionError("decoded in vain")

        def encoded(self, index):
            captions = tuple(f"a {color} star" for color in ("red", "blue", "white")[: 1 + index])
            return Encoded(encoded(index), 0, f"{index}", captions)

        def fingerprint(self):
            return "several"

    recipe = texts.TextRecipe.of("clip-shapes", Recipe((4, 4)))
    made = list(recipe.finish(recipe.make(Several(), index) for index in range(5)))
    tokenizer, found = clip_shapes.tokenizer(), [unpack(one.records[0]) for one in made]
    for index, item in enumerate(found):
        assert item.states.shape == (min(index + 1, 3), *SHAPE)
        live = loaded.text(tokenizer(item.caption))["text_hidden"]
        np.testing.assert_allclose(item.states, live, atol=2e-3)
    options = read_options(data(source="records", path="x", text="clip-shapes", embedded=True))
    transform = make_transform(options)
    picture = {"image": np.zeros((4, 4, 3), np.uint8), "label": np.int32(0)}
    picture |= {"caption": found[4].caption, "text_states": found[4].states}
    drawn = [transform(picture, np.random.default_rng(seed)) for seed in range(12)]
    words = {tuple(item["tokens"]) for item in drawn}
    assert len(words) == 3
    for item in drawn:
        live = loaded.text(item["tokens"][None])["text_hidden"][0]
        np.testing.assert_allclose(item["text_states"], live, atol=2e-3)


def test_states_travel_with_any_picture():
    states = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float16)
    before = Encoded(b"\n\x00picture\n", 3, "a", ("x", "y\nz"), states)
    after = unpack(pack(before))
    np.testing.assert_array_equal(after.states, states)
    for field in ("picture", "label", "name", "caption"):
        assert getattr(after, field) == getattr(before, field)
    bare = dataclasses.replace(before, states=None, caption=None)
    assert unpack(pack(bare)) == bare


def test_other_weights_are_other_records(folder, loaded, tmp_path, capsys, monkeypatch):
    out = records_of(folder, tmp_path / "out")
    changed = dataclasses.replace(loaded, sha256="another")
    monkeypatch.setattr(catalog, "load", lambda name: changed)
    texts._network.cache_clear()
    arguments = ["--source=folder", f"--path={folder}", f"--out={out}", "--resolution=4"]
    assert main([*arguments, "--text=clip-shapes"]) == 2
    assert "sha256: " in capsys.readouterr().err


def test_texts_that_nobody_embedded_are_an_error(folder, loaded, tmp_path):
    out = tmp_path / "plain"
    start = ["--source=folder", f"--path={folder}", f"--out={out}", "--workers=0", "--captions"]
    assert main(start) == 0
    with pytest.raises(ValueError, match="embedded by nobody.*--text=clip-shapes"):
        open_source(fields_of(out))
    with pytest.raises(ValueError, match="embedded=True takes texts that"):
        read_options(data(source="folder", path="x", text="clip-shapes", embedded=True))
    assert main([*start[:2], f"--out={tmp_path / 'x'}", "--text=inception-2015-12-05"]) == 2


def test_threads_read_the_same(folder, loaded, tmp_path):
    source = Records(records_of(folder, tmp_path / "out"))
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(source.encoded, list(range(5)) * 4))
    for index, item in enumerate(at_once):
        np.testing.assert_array_equal(item.states, source.encoded(index % 5).states)


def test_pictures_alone_go_through_unchanged(folder, tmp_path):
    source = open_source(data(source="folder", path=str(folder), captions=True))
    index = prepare(source, tmp_path / "out", Recipe((4, 4)), show=False)
    assert "captions" not in index["origin"] and "text" not in index["origin"]
    assert "caption" not in Records(tmp_path / "out")[0]
