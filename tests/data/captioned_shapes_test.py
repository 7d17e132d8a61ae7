import re

import numpy as np
import pytest

from ganjax.data.captioned_shapes import (
    COMBINATIONS,
    HELD_OUT,
    KNOWN,
    RADII,
    RELATIONS,
    SIZE_WORDS,
    CaptionedShapes,
    draw,
    prompts,
    vocabulary,
)
from ganjax.data.demo import COLORS
from ganjax.data.pipeline import Stream, index_at
from ganjax.data.sources import make_transform, open_source, read_options
from ganjax.pretrained import catalog, clip_shapes
from tests.data.sources_test import data

ITEMS = 600


@pytest.fixture(scope="module")
def scenes():
    return [CaptionedShapes().scene(i) for i in range(ITEMS)]


def test_an_item_is_a_pure_function_of_seed_and_index():
    a, b = CaptionedShapes(), CaptionedShapes(count=9000)
    for i in (7, 3, 8999):
        np.testing.assert_array_equal(a[i]["image"], b[i]["image"])
        assert a[i]["caption"] == b[i]["caption"]
    assert (a[7]["image"] != CaptionedShapes(seed=1)[7]["image"]).any()
    assert a[0]["image"].dtype == np.uint8 and a[0]["image"].shape == (32, 32, 3)
    options = [{}, {"seed": 1}, {"count": 5}, {"split": "all"}, {"objects": 1}]
    assert len({CaptionedShapes(**each).fingerprint() for each in options}) == len(options)


def test_a_scene_is_pinned(scenes):
    """Runs resume, and a CLIP is trained, on these: the draws of a scene never change."""
    assert [scene.caption for scene in scenes[2:5]] == PINNED
    first = scenes[3].things[0]
    np.testing.assert_allclose([first.x, first.y, first.radius, first.rotation], PLACED, rtol=1e-9)


PINNED = [
    "a purple cross",
    "a small cyan cross left of a little green triangle",
    "a cyan circle to the left of a small purple cross",
]
PLACED = [-0.3749692744805322, -0.34659285094088466, 0.31656429476911285, -0.2043677171397939]


def test_captions_say_what_is_there(scenes):
    words = {word: size for size, ws in SIZE_WORDS.items() for word in ws}
    relations = {word: name for name, (_, ws) in RELATIONS.items() for word in ws}
    kinds = set()
    for scene in scenes:
        said = re.findall(
            r"\ban? (?!picture)([a-z ]+?(?:circle|square|triangle|star|cross|heart))", scene.caption
        )
        assert len(said) == len(scene.things)
        for text, thing in zip(said, scene.things):
            *size, color, shape = text.split()
            assert (color, shape) == (thing.color, thing.shape)
            assert [words[word] for word in size] in ([], [thing.size])
            low, high = RADII[thing.size]
            assert low <= thing.radius <= high
        between = re.search(r"(?:circle|square|triangle|star|cross|heart) (.+) an? ", scene.caption)
        assert (relations[between[1]] if between else "") == scene.relation
        kinds.add((scene.relation, *(len(text.split()) for text in said)))
    assert len(kinds) == 2 + 4 * 4, "each relation, and sizes named or not"
    assert 0.4 < np.mean([len(scene.things) == 2 for scene in scenes]) < 0.6
    assert "an orange" in " ".join(scene.caption for scene in scenes)


def test_things_lie_where_the_caption_says_and_in_the_picture(scenes):
    for scene in scenes:
        for thing in scene.things:
            assert max(abs(thing.x), abs(thing.y)) + thing.radius <= 0.98 + 1e-9
        if scene.relation:
            (dx, dy), _ = RELATIONS[scene.relation]
            one, other = scene.things
            apart = dx * (one.x - other.x) + dy * (one.y - other.y)
            assert apart >= one.radius + other.radius, "and do not cover each other"


def test_pictures_show_their_colours(scenes):
    for scene in scenes[:20]:
        image = draw(scene, (64, 64)).astype(int)
        for thing in scene.things:
            here = round(32 - 32 * thing.y), round(32 + 32 * thing.x)
            if thing.shape not in ("star", "heart"):  # whose centre may be an edge
                assert np.abs(image[here] - COLORS[thing.color]).max() <= 1, thing


def test_what_is_held_out_is_in_no_picture_of_training(scenes):
    assert len(HELD_OUT) == 6 and len(KNOWN) == 42 and len(COMBINATIONS) == 48
    assert len({color for color, _ in HELD_OUT}) == len({shape for _, shape in HELD_OUT}) == 6
    seen = {(thing.color, thing.shape) for scene in scenes for thing in scene.things}
    assert seen == set(KNOWN)
    held = [CaptionedShapes(split="heldout").scene(i) for i in range(200)]
    assert {scene.combination for scene in held} == set(HELD_OUT)
    everything = [CaptionedShapes(split="all", objects=1).scene(i) for i in range(ITEMS)]
    assert {scene.combination for scene in everything} == set(COMBINATIONS)
    assert {len(scene.things) for scene in everything} == {1}


def test_prompts_are_of_their_split():
    held, known = prompts(), prompts("train", objects=1)
    assert len(held) == len(set(held)) == 6 * 3 + 6 * 4 * 42 and len(known) == 42 * 3
    assert "a white circle" in held and "a large red circle" in known
    assert "a yellow heart left of a red circle" in held
    for prompt in held:
        assert any(f"{color} {shape}" in prompt.split(" a")[0] for color, shape in HELD_OUT)
    tokens = catalog.find_tokenizer(clip_shapes.NAME)(held, truncate=False)
    assert tokens.shape == (len(held), clip_shapes.CONTEXT)


def test_every_caption_has_tokens(scenes):
    tokenizer = clip_shapes.tokenizer()
    tokenizer([scene.caption for scene in scenes], truncate=False)
    used = {word for scene in scenes for word in scene.caption.split()}
    assert used == set(vocabulary())


@pytest.mark.parametrize(
    "options, said",
    [
        ({"split": "test"}, "no split 'test'"),
        ({"objects": 3}, "3 objects; set config.data.objects"),
    ],
)
def test_an_option_that_cannot_be_is_an_error(options, said):
    with pytest.raises(ValueError, match=said):
        open_source(data(source="captioned_shapes", **options))


def test_a_stream_gives_tokens_where_a_config_names_a_vocabulary():
    fields = dict(source="captioned_shapes", split="heldout", objects=1, resolution=16)
    options = read_options(data(**fields, text="clip-shapes"))
    source = open_source(data(**fields))
    batch = next(Stream(source, make_transform(options), shape=(1, 2, 4), seed=0, threads=0))
    assert batch["image"].shape == (1, 2, 4, 16, 16, 3)
    assert batch["tokens"].shape == (1, 2, 4, clip_shapes.CONTEXT)
    captions = [source[index_at(0, place, len(source))]["caption"] for place in range(8)]
    expected = clip_shapes.tokenizer()(captions).reshape(batch["tokens"].shape)
    np.testing.assert_array_equal(batch["tokens"], expected)
    without = make_transform(read_options(data(**fields)))
    batch = next(Stream(source, without, shape=(1, 1, 2), seed=0, threads=0))
    assert set(batch) == {"image", "label"}
