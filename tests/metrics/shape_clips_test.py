"""The network of clips learns what moves and how."""

import jax
import numpy as np
import pytest

from ganjax.data.demo import ShapeVideos
from ganjax.metrics import shape_clips

CLIPS = 24


@pytest.fixture(scope="module")
def known():
    """Clips, their shapes, and how these move."""
    source, frames = ShapeVideos((16, 16), CLIPS), np.arange(shape_clips.FRAMES)
    clips = np.stack([source.video(i).read(frames) for i in range(CLIPS)])
    labels = np.array([source[i]["label"] for i in range(CLIPS)])
    moves = np.stack([source.moves(i, (frames / source.rate).tolist()) for i in range(CLIPS)])
    return clips, labels, moves


def test_it_tells_shapes_and_places_and_keeps_them_in_a_file(known):
    clips, labels, moves = known
    network, params = shape_clips.train(clips, labels, moves, 10, steps=60)
    kept = shape_clips.from_arrays(shape_clips.to_arrays(params))
    jax.tree.map(np.testing.assert_array_equal, kept, params)
    features, logits, found = jax.jit(network.apply)({"params": kept}, clips)
    assert features.shape == (CLIPS, shape_clips.FEATURES) and np.asarray(features).min() >= 0
    assert (np.argmax(logits, 1) == labels).mean() > 0.6
    wanted = (moves - moves.mean(0)) / moves.std(0)
    assert np.square(found - wanted).mean() < 0.5  # of 1, which the mean alone would leave


def test_clips_are_of_any_size_and_grey_or_not(known):
    network = shape_clips.Network(classes=10, moves=6)
    params = jax.jit(network.init)(jax.random.key(0), known[0][:1])
    shapes = [(1, 16, 16, 16, 3), (1, 16, 64, 40, 1)]
    for shape in shapes:
        out = jax.eval_shape(network.apply, params, jax.ShapeDtypeStruct(shape, np.uint8))
        assert [part.shape for part in out] == [(1, 64), (1, 10), (1, 6)]


def test_moves_are_where_the_shape_is_at_both_ends():
    source = ShapeVideos((16, 16), 3)
    first, last = source.scene(2, 1.0), source.scene(2, 3.0)
    expected = [first.x, first.y, first.size, last.x, last.y, last.size]
    np.testing.assert_array_equal(source.moves(2, (1.0, 2.0, 3.0)), expected)
