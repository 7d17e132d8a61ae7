"""The tiny CLIP that is trained on the spot, by few steps here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.data.captioned_shapes import CaptionedShapes
from ganjax.pretrained import catalog, clip, clip_shapes, train_clip, weights

SHORT = clip_shapes.Training(items=512, steps=100, batch=32, learning_rate=3e-3)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; training is short."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GANJAX_WEIGHTS", raising=False)
    monkeypatch.setattr(clip_shapes, "Training", Short)
    return tmp_path / "cache" / "ganjax" / "weights"


class Short(clip_shapes.Training):
    """A few steps, where nothing else is asked for."""

    def __init__(self, **fields):
        super().__init__(**{"items": 40, "steps": 2, "batch": 8} | fields)


@pytest.fixture(scope="module")
def trained():
    return clip_shapes.train(SHORT, show=False)


def test_it_learns_to_tell_what_it_has_never_seen(trained):
    found = clip_shapes.accuracy(trained, count=128)
    before = clip_shapes.accuracy(clip_shapes.train(Short(), show=False), count=128)
    assert before["held_out"] < 0.4 and before["captions"] < 0.04, "chance: 1/6, 1/64"
    assert found["held_out"] > 0.5 and found["captions"] > 0.04, found
    assert found["all"] <= found["held_out"]


def test_the_same_numbers_give_the_same_network():
    one, same, other = (clip_shapes.train(Short(seed=seed), show=False) for seed in (0, 0, 1))
    assert catalog.digest(one) == catalog.digest(same) != catalog.digest(other)


def test_things_are_alone_first(monkeypatch):
    """Captions with a relation are of two things."""
    seen = []

    def step(training, variables, state, images, tokens):
        seen.append(tokens)
        return variables, state, 0.0

    monkeypatch.setattr(clip_shapes, "_step", step)
    clip_shapes.train(Short(items=64, steps=8, alone=0.5), show=False)
    relations = "left right above over below under"
    pair = np.isin(seen, clip_shapes.tokenizer()([relations])[0][1:7]).any(axis=-1)  # [steps, n]
    assert pair.shape == (8, 8) and not pair[:4].any() and 0.2 < pair[4:].mean() < 0.8


def test_contrast_is_least_where_each_finds_its_own():
    own = clip_shapes.contrast(20 * jnp.eye(4))
    assert float(own) < 1e-6
    np.testing.assert_allclose(clip_shapes.contrast(jnp.zeros((4, 4))), np.log(4), rtol=1e-6)
    # A picture whose text is another's: rows are wrong, columns are not all.
    assert float(clip_shapes.contrast(20 * jnp.eye(4)[jnp.array([1, 0, 2, 3])])) > 5


def test_both_towers_are_there_for_training(trained):
    """Hidden states of texts, and gradients through what is seen in pictures of 32x32."""
    network = clip.ClipNetwork(
        clip_shapes.NAME, clip_shapes.KIND, trained, tokenizer=clip_shapes.tokenizer()
    )
    texts = network.text(["a red circle", "a small blue square"])
    assert texts["text_hidden"].shape == (2, clip_shapes.CONTEXT, 64)
    images = jnp.asarray(CaptionedShapes()[0]["image"], jnp.float32)[None]

    @jax.jit
    def likeness(images):
        seen = clip_shapes.MODULE.apply(trained, clip.normalise(images))["embedding"]
        return clip.unit(seen)[0] @ clip.unit(texts["text_embedding"])[0]

    gradient = jax.grad(likeness)(images)
    assert gradient.shape == images.shape and np.isfinite(gradient).all()
    assert float(likeness(images + 50 * jnp.sign(gradient))) > float(likeness(images))


def test_it_is_trained_once_and_kept(cache, monkeypatch):
    network = catalog.load(clip_shapes.NAME)
    assert isinstance(network, clip.ClipNetwork) and network.tokenizer is not None
    assert network(np.zeros((2, 48, 32, 3), np.uint8))["embedding"].shape == (2, 32)
    assert len(list(cache.glob("clip-shapes-*.safetensors"))) == 1

    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(clip_shapes, "train", fail)
    again = catalog.load(clip_shapes.NAME)
    assert network.sha256 == again.sha256 == catalog.digest(again.variables)
    # Another network is another file, and damage is noticed.
    with pytest.raises(AssertionError, match="trained again"):
        monkeypatch.setattr(clip_shapes, "VERSION", 0)
        catalog.find(clip_shapes.NAME)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_made_anew(cache, damage, caplog):
    sha256 = catalog.load(clip_shapes.NAME).sha256
    (file,) = cache.glob("clip-shapes-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content[:-100] if damage == "cut" else content)
    assert catalog.load(clip_shapes.NAME).sha256 == sha256
    assert "is made anew" in caplog.text


def test_a_network_of_the_command_line_is_taken_instead(cache, tmp_path, monkeypatch, capsys):
    arguments = ["--config=configs/clip.py", f"--out={tmp_path / 'own'}", "--config.seed=5"]
    assert train_clip.main(arguments) == 0
    assert "find their own text among the 6" in capsys.readouterr().out
    monkeypatch.setenv("GANJAX_WEIGHTS", str(tmp_path / "own"))
    own = catalog.load(clip_shapes.NAME)
    assert not list(cache.glob("clip-shapes-*"))
    monkeypatch.delenv("GANJAX_WEIGHTS")
    assert own.sha256 != catalog.load(clip_shapes.NAME).sha256
    with pytest.raises(ValueError, match="does not exist"):
        weights.find(clip_shapes.NAME, tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    "argument, said",
    [
        ("--config.steps=0", "config.steps=0: expected 1 or more"),
        ("--config.alone=1.5", "config.alone=1.5: expected a share"),
        ("--config.step=1", "no such field; did you mean --config.steps"),
    ],
)
def test_a_number_that_cannot_be_is_an_error(argument, said, tmp_path, capsys):
    assert train_clip.main(["--config=configs/clip.py", f"--out={tmp_path}", argument]) == 2
    assert said in capsys.readouterr().err
    assert train_clip.main(["--config=configs/biggan.py", f"--out={tmp_path}"]) == 2
    assert "has no numbers of a CLIP's training" in capsys.readouterr().err
