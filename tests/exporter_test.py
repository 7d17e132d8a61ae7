"""A generator leaves ganjax: program, weights, official weights, and how to use them."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import export

from configs import biggan
from ganjax import generate
from ganjax.config import ConfigError
from ganjax.exporter import export_run
from ganjax.families.biggan import official
from ganjax.family import Request, build
from ganjax.importer import import_run
from tests.evaluate_texts_test import CONFIG, TEXTS

SNAPSHOT = pathlib.Path(__file__).parent / "interop" / "data" / "ada_conditional.pkl"
THRESHOLD = 0.7

# Draws with what a folder holds, in a Python that cannot import ganjax or flax.
WITHOUT = """
import json, pathlib, re, sys
sys.modules["ganjax"] = sys.modules["flax"] = None
import jax
import numpy as np
from safetensors.numpy import load_file

for folder in map(pathlib.Path, sys.argv[1:]):
    weights = load_file(folder / "weights.safetensors")
    program = jax.export.deserialize(bytearray((folder / "generator.jax").read_bytes()))
    draws = dict(np.load(folder.with_suffix(".npz")))
    for n in (1, 3):
        images = program.call(weights, {name: array[:n] for name, array in draws.items()})
        np.save(folder.with_suffix(f".{n}.npy"), images)
"""


def write_biggan(folder):
    """Official weights of a tiny BigGAN, with statistics that standing ones differ from."""
    family = build(biggan.tiny(), "cpu")
    variables = family.init(jax.random.key(0)).players["g"].variables
    state = official.to_official(variables, family.networks["g"])
    file = folder / "G_ema.safetensors"
    safetensors.numpy.save_file({k: np.asarray(v, order="C") for k, v in state.items()}, file)
    return file


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Run and exported folder of each family, with what another Python draws from it."""
    root = tmp_path_factory.mktemp("export")
    runs = {name: root / f"{name}_run" for name in ("stylegan2", "biggan")}
    import_run(SNAPSHOT, runs["stylegan2"])
    import_run(write_biggan(root), runs["biggan"], biggan.tiny())
    folders = {
        "stylegan2": export_run(runs["stylegan2"], root / "stylegan2"),
        "biggan": export_run(runs["biggan"], root / "biggan", truncation=THRESHOLD),
    }
    for name, folder in folders.items():
        draws = draws_of(generate.load(runs[name]), name)
        np.savez(folder.with_suffix(".npz"), **jax.tree.map(np.asarray, draws))
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, folders.values())], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return {name: (runs[name], folders[name]) for name in runs}


def draws_of(model, name):
    request = Request(truncation=THRESHOLD) if name == "biggan" else Request(truncation=0.6)
    return model.family.draws(jax.random.key(5), jnp.arange(3), request)


@pytest.mark.parametrize("name", ["stylegan2", "biggan"])
def test_it_draws_the_same_without_ganjax(exported, name):
    run, folder = exported[name]
    model = generate.load(run)
    truncation = THRESHOLD if name == "biggan" else None
    draw = model.bind(0, Request(truncation=truncation))
    wanted = np.asarray(draw(draws_of(model, name)))
    for n in (1, 3):
        images = np.load(folder.with_suffix(f".{n}.npy"))
        assert images.shape == (n, *wanted.shape[1:]) and images.std() > 0.01
        np.testing.assert_allclose(images, wanted[:n], atol=2e-5)


def test_statistics_are_those_of_the_threshold(exported):
    _, folder = exported["biggan"]
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    # Running averages of a fresh network are 0 and 1.
    assert weights["batch_stats/output_norm/mean"].std() > 0
    assert "values beyond 0.7 drawn again" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["stylegan2", "biggan"])
def test_a_folder_is_whole(exported, name):
    run, folder = exported[name]
    files = {"README.md", "config.json", "generator.jax", "official.safetensors"}
    assert {file.name for file in folder.iterdir()} == files | {"weights.safetensors"}
    assert json.loads((folder / "config.json").read_text()) == json.loads(
        (run / "config.json").read_text()
    )
    program = export.deserialize(bytearray((folder / "generator.jax").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert str(program.out_avals[0].shape[0]) == "n"


def test_official_weights_come_back(exported, tmp_path):
    run, folder = exported["stylegan2"]
    import_run(folder / "official.safetensors", tmp_path / "run")  # by the config beside them
    jax.tree.map(
        np.testing.assert_array_equal,
        generate.load(tmp_path / "run").variables,
        generate.load(run).variables,
    )


def test_the_lines_of_the_readme_run(exported):
    _, folder = exported["stylegan2"]
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    code += "print(images.shape)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert result.stdout.strip() == "(4, 16, 16, 3)", result.stderr


def test_it_keeps_what_is_there_and_leaves_nothing_half_written(exported, tmp_path, monkeypatch):
    run, folder = exported["stylegan2"]
    with pytest.raises(ConfigError, match=r"stylegan2 is there already.*Give --out="):
        export_run(run, folder)
    monkeypatch.setattr("ganjax.exporter._readme", lambda *unused: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_run(run, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is not the directory of a run"):
        export_run(tmp_path / "none", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_that_reads_texts_is_not_exported(tmp_path, monkeypatch):
    model = generate.Model(TEXTS, {}, CONFIG, 1)
    monkeypatch.setattr(generate, "load", lambda *args, **kwargs: model)
    with pytest.raises(ConfigError, match="draws what texts say, .* Use --mode=sample --prompt"):
        export_run(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
