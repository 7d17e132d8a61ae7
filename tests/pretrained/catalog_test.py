"""From official files to networks: loading, converting, and what does not fit."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ganjax.pretrained import catalog, clip, convert, inception, weights
from ganjax.pretrained.blocks import shapes_of
from ganjax.pretrained.network import FeatureNetwork

NAME = "clip-vit-b-32"
TINY = clip.kind(
    clip.Clip(
        image=clip.ImageTower(width=16, layers=1, heads=2, embedding=8, patch=4, size=8),
        text=clip.TextTower(width=12, layers=1, heads=3, embedding=8, vocabulary=20, context=7),
    )
)


@pytest.fixture
def official(tmp_path, monkeypatch):
    """An official file of a CLIP of a few hundred numbers, which stands in for the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GANJAX_OFFLINE", "1")
    monkeypatch.delenv("GANJAX_WEIGHTS", raising=False)
    monkeypatch.setitem(catalog.KINDS, NAME, TINY)
    monkeypatch.setitem(catalog.KINDS, "clip-vit-l-14", TINY)
    catalog._shapes.cache_clear()
    yield write_official(tmp_path / "state.npz")
    catalog._shapes.cache_clear()


def write_official(path, **more):
    rng = np.random.default_rng(0)
    entries = clip.entries(shapes_of(TINY.module, *TINY.examples), {})
    state = {
        name: rng.normal(0, 0.3, entry.shape).astype(np.float16)
        for entry in entries
        for name in entry.names
    }
    np.savez(path, **state, input_resolution=np.array(8), **more)
    return path


def test_catalog_and_table_name_the_same_networks():
    assert list(catalog.KINDS) == list(weights.SOURCES)


def test_official_and_converted_weights_are_the_same_network(official, tmp_path, capsys):
    network = catalog.load(NAME, official)
    assert isinstance(network, clip.ClipNetwork)
    assert {leaf.dtype for leaf in jax.tree.leaves(network.variables)} == {jnp.dtype("float32")}
    assert convert.main([NAME, "--path", str(official), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "matched visual.conv1.weight\n" in printed and "entries matched" in printed
    assert f"SHA-256 {network.sha256}" in printed and len(network.sha256) == 64
    again = catalog.load(NAME, tmp_path / f"{NAME}.safetensors")
    jax.tree.map(np.testing.assert_array_equal, again.variables, network.variables)
    assert again.sha256 == network.sha256
    images = np.zeros((1, 9, 9, 3), np.uint8)
    np.testing.assert_array_equal(again(images)["embedding"], network(images)["embedding"])


def test_converted_weights_are_found_in_the_cache(official, capsys):
    assert convert.main([NAME, "--path", str(official), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "matched visual" not in printed and "38 entries matched" in printed
    assert catalog.load(NAME).sha256 == catalog.load(NAME, official).sha256


def test_what_does_not_fit(official, tmp_path, capsys):
    short = dict(np.load(official))
    short.pop("ln_final.bias")
    np.savez(tmp_path / "short.npz", **short)
    assert convert.main([NAME, "--path", str(tmp_path / "short.npz")]) == 1
    error = capsys.readouterr().err
    assert "short.npz cannot be read as clip-vit-b-32" in error and "ln_final.bias" in error
    write_official(tmp_path / "more.npz", aux=np.zeros(2))
    assert convert.main([NAME, "--path", str(tmp_path / "more.npz"), "--quiet"]) == 0
    assert "1 unexpected:\n    aux\n" in capsys.readouterr().out


def test_converted_weights_of_another_network_or_version(official, tmp_path):
    variables, _, sha256 = catalog.read(NAME, official)
    path = tmp_path / "x.safetensors"
    catalog.write(path, "c3d-ucf101", variables, sha256)
    with pytest.raises(ValueError, match="holds the weights of c3d-ucf101, not of clip-vit-b-32"):
        catalog.load(NAME, path)
    del variables["params"]["logit_scale"]
    other = tmp_path / "y.safetensors"
    catalog.write(other, NAME, variables, sha256)
    with pytest.raises(ValueError, match="another version of clip-vit-b-32; convert it again"):
        catalog.load(NAME, other)
    cut = tmp_path / "z.safetensors"
    cut.write_bytes(other.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"z\.safetensors"):
        catalog.load(NAME, cut)


def test_official_safetensors_are_read_by_their_names(official, tmp_path):
    state = {key: np.array(array, order="C") for key, array in np.load(official).items()}
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
    network = catalog.load(NAME, tmp_path / "model.safetensors")
    wanted = catalog.load(NAME, official).variables
    jax.tree.map(np.testing.assert_array_equal, network.variables, wanted)


def test_texts_through_the_checkpoints_tokenizer(official, tmp_path):
    marks = {"<|startoftext|>": 18, "<|endoftext|>": 19}
    vocabulary = {"a</w>": 3, "b</w>": 4, **marks}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    network = catalog.load(NAME, official, tokenizer=tmp_path)
    found = network.text(["a b", "b"])
    # As one gets it from Hugging Face: all in one folder.
    state = {key: np.array(array, order="C") for key, array in np.load(official).items()}
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
    folder = catalog.load(NAME, tmp_path)
    np.testing.assert_array_equal(folder.text("b")["text_end"], network.text(["b"])["text_end"])
    tokens = np.array([[18, 3, 4, 19, 0, 0, 0], [18, 4, 19, 0, 0, 0, 0]], np.int32)
    np.testing.assert_array_equal(found["text_embedding"], network.text(tokens)["text_embedding"])
    with pytest.raises(ValueError, match="c3d-ucf101 reads no texts"):
        catalog.load("c3d-ucf101", tokenizer=tmp_path)


def test_errors_of_names_and_of_missing_files(official):
    with pytest.raises(ValueError, match="no network 'fid'; known are inception-2015-12-05"):
        catalog.load("fid")
    with pytest.raises(ValueError, match=r"GANJAX_OFFLINE is set.*\nwanted for i3d-styleganv"):
        catalog.load("i3d-styleganv")


def test_inception_of_the_tensorflow_graph():
    shapes = shapes_of(inception.KIND.module, *inception.KIND.examples)
    entries = inception.entries(shapes, {"conv/conv2d_params": np.zeros(1)})
    names = {"/".join(entry.path[1:]): entry.names[0] for entry in entries}
    assert len(set(names.values())) == 472
    for ours, theirs in {
        "Conv2d_4a_3x3/bn/var": "conv_4/batchnorm/moving_variance",
        "Mixed_5b/branch5x5_2/conv/kernel": "mixed/tower/conv_1/conv2d_params",
        "Mixed_6a/branch3x3/bn/bias": "mixed_3/conv/batchnorm/beta",
        "Mixed_6e/branch7x7dbl_5/conv/kernel": "mixed_7/tower_1/conv_4/conv2d_params",
        "Mixed_7a/branch3x3_2/bn/scale": "mixed_8/tower/conv_1/batchnorm/gamma",
        "Mixed_7c/branch3x3dbl_3b/conv/kernel": "mixed_10/tower_1/mixed/conv_1/conv2d_params",
        "Mixed_7c/branch_pool/bn/mean": "mixed_10/tower_2/conv/batchnorm/moving_mean",
        "fc/kernel": "softmax/weights",
    }.items():
        assert names[ours] == theirs
    # A graph holds other constants, too; its kernels are already [h, w, in, out].
    state = {entry.names[0]: np.zeros(entry.shape, np.float32) for entry in entries}
    state["conv/conv2d_params"] = np.arange(864, dtype=np.float32).reshape(3, 3, 3, 32)
    variables, report = inception.KIND.from_official(state | {"ResizeBilinear/size": np.zeros(2)})
    assert report.complete
    kernel = variables["params"]["Conv2d_1a_3x3"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, state["conv/conv2d_params"])


def test_the_command_explains_itself():
    command = [sys.executable, "-m", "ganjax.pretrained.convert", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "conv3d_deepnetA_ucf.npz" in done.stdout and "--path" in done.stdout


def test_other_networks_are_feature_networks(official, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "read", lambda name, path: ({}, catalog.Report(), "hash"))
    network = catalog.load("inception-2015-12-05")
    assert type(network) is FeatureNetwork and network.sha256 == "hash"
    assert hasattr(catalog.load("vgg16"), "lpips")
