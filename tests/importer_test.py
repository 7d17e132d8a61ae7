"""Official weights become a run like any other."""

import hashlib
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from configs import biggan
from configs import stylegan2 as stylegan2_configs
from configs import stylegan3 as stylegan3_configs
from ganjax import checkpoint, generate
from ganjax.config import ConfigError
from ganjax.families.biggan import official
from ganjax.family import build, official_of
from ganjax.importer import import_run
from ganjax.interop.weights import read_weights

DATA = pathlib.Path(__file__).parent / "interop" / "data"
SNAPSHOT = DATA / "ada_conditional.pkl"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("import") / "run"
    return workdir, import_run(SNAPSHOT, workdir, overrides={"train.batch": "8"})


@pytest.mark.parametrize("name", ["ada_conditional", "stylegan3_t", "stylegan3_r"])
def test_a_snapshot_makes_the_images_of_the_reference_code(imported, tmp_path, name):
    if name == SNAPSHOT.stem:
        workdir, reports = imported
    else:
        workdir = tmp_path / "run"
        reports = import_run(DATA / f"{name}.pkl", workdir)
    assert list(reports) == ["G", "D", "G_ema"] and all(r.complete for r in reports.values())
    model = generate.load(workdir)
    golden = np.load(DATA / f"{name}.npz")
    z, label = jnp.asarray(golden["z"]), jnp.asarray(golden["label"])
    draw = jax.jit(
        lambda kept: model.family.networks["g"].apply(model.variables, z, label, truncation=kept)
    )
    for kept in (1, 0.5):
        wanted = golden[f"images_{kept}"]
        images = draw(jnp.full(len(z), kept, jnp.float32))
        assert np.abs(images - wanted).max() <= 1e-5 * np.ptp(wanted)
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        state, step = checkpoints.restore(model.family.abstract_state())
    if name == SNAPSHOT.stem:  # it is the same in all
        judge = jax.jit(model.family.networks["d"].apply)
        logits = judge(state.players["d"].variables, jnp.asarray(golden["images_1"]), label)
        np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4)
    assert step == state.step == state.items == 0
    # G is not its average.
    w_avg = state.players["g"].collections["averages"]["mapping"]["w_avg"]
    assert np.abs(w_avg - model.variables["averages"]["mapping"]["w_avg"]).max() > 0.1


def test_t_and_r_are_told_apart(tmp_path):
    found = {}
    for name in ("t", "r"):
        weights = read_weights(DATA / f"stylegan3_{name}.pkl")
        config = official_of(stylegan3_configs.get_config()).configured(
            stylegan3_configs.get_config(), weights
        )
        found[name] = [config.model[key] for key in ("kernel_size", "radial", "layers", "margin")]
        assert (config.model.g_channel_base, config.model.g_channel_max) == (64, 8)
        assert (config.model.conditional, config.data.classes) == (
            name == "t",
            3 if name == "t" else 1,
        )
        assert config.augment.mode == "none" and config.loss.r1_gamma == 2 * (16 / 256) ** 2
    assert found == {"t": [3, False, 5, 10], "r": [1, True, 5, 10]}


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("mapping.fc0", "bias_gain", 1.0),
        ("synthesis.b4.conv1", "use_noise", False),
        ("synthesis.b4.conv1", "activation", "relu"),
    ],
)
def test_options_that_no_config_has_are_refused(part, name, value):
    weights = read_weights(SNAPSHOT)
    weights.generator.part(part).attributes[name] = value
    with pytest.raises(ValueError, match=rf"{part}\.{name}={value!r}, and configs of ganjax have"):
        official_of(stylegan2_configs.get_config()).configured(
            stylegan2_configs.get_config(), weights
        )


def test_the_config_is_found_in_the_file(imported):
    config = checkpoint.read_config(imported[0])
    data, model = config.data, config.model
    assert (data.resolution, data.channels, data.classes) == (16, 3, 3)
    assert (data.source, data.path, data.flip) == ("zip", "./data.zip", False)
    assert (model.conditional, model.latent_dim, model.w_dim, model.mapping_layers) == (
        True,
        6,
        8,
        2,
    )
    assert (model.g_channel_base, model.d_channel_base, model.channel_max) == (64, 32, 8)
    assert (model.g_architecture, model.d_architecture) == ("skip", "resnet")
    assert (model.group_size, model.narrow, model.clamp) == (2, 2, 256.0)
    source = json.loads((imported[0] / "import.json").read_text())
    assert source["entries"] == {"G": 58, "D": 46, "G_ema": 58}
    assert source["sha256"] == {str(SNAPSHOT): hashlib.sha256(SNAPSHOT.read_bytes()).hexdigest()}
    # The rest by the rules of `auto`; the command line has the last word.
    assert config.train.batch == 8 and config.loss.r1_gamma == pytest.approx(2e-4 * 16**2 / 8)
    assert config.ema.ramp_up == 0 and config.augment.mode == "ada"


def test_it_keeps_what_is_there_and_leaves_no_half_of_a_run(imported, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"run is there already and not empty"):
        import_run(SNAPSHOT, imported[0])

    def fails(*arguments, **more):
        raise OSError("no room")

    monkeypatch.setattr(checkpoint, "prepare", fails)
    with pytest.raises(OSError, match="no room"):
        import_run(SNAPSHOT, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"pkl is of stylegan2, and the config of .*biggan"):
        import_run(SNAPSHOT, tmp_path / "run", biggan.tiny())
    with pytest.raises(ConfigError, match=r"no such field; did you mean --config\.train\.batch"):
        import_run(SNAPSHOT, tmp_path / "run", overrides={"train.bach": "8"})
    with pytest.raises(ValueError, match=r"pkl: G: .*bias has shape .*set by --config\.model"):
        import_run(SNAPSHOT, tmp_path / "run", overrides={"model.g_channel_base": "32"})
    with pytest.raises(FileNotFoundError, match="none.pkl does not exist; give --weights"):
        import_run(tmp_path / "none.pkl", tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def officials():
    """Official states of a tiny BigGAN, by name."""
    family = build(biggan.tiny(), "cpu")
    states = {}
    for number, (name, player) in enumerate({"G": "g", "D": "d", "G_ema": "g"}.items()):
        variables = family.init(jax.random.key(number)).players[player].variables
        states[name] = official.to_official(variables, family.networks[player])
    return states


def write(path, states):
    """A file of networks; the names of a single one stand alone."""
    prefixed = {
        f"{player}.{name}" if len(states) > 1 else name: np.asarray(array, order="C")
        for player, state in states.items()
        for name, array in state.items()
    }
    safetensors.numpy.save_file(prefixed, path)
    return path


def restored(workdir):
    model = generate.load(workdir)
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        state, _ = checkpoints.restore(model.family.abstract_state())
    trees = {"G": state.players["g"], "D": state.players["d"]}
    trees = {name: player.variables for name, player in trees.items()} | {"G_ema": state.ema}
    modules = model.family.networks
    return {
        name: official.to_official(tree, modules[name[0].lower()]) for name, tree in trees.items()
    }


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a if "counter" not in name)


def test_biggan_by_its_config(officials, tmp_path):
    file = write(tmp_path / "all.safetensors", officials)
    with pytest.raises(
        ConfigError, match=r"does not tell its architecture, .*beside it\. Give --config"
    ):
        import_run(file, tmp_path / "run")
    import_run(file, tmp_path / "run", biggan.tiny())
    found = restored(tmp_path / "run")
    assert all(same(officials[name], found[name]) for name in officials)
    # An average that is there is not overwritten in the first steps.
    assert checkpoint.read_config(tmp_path / "run").ema.start_step == 0


def test_a_folder_of_state_dicts_is_known_by_its_files(officials, tmp_path, monkeypatch):
    for name in ("G", "G_ema"):
        (tmp_path / f"{name}.pth").write_bytes(name.encode())
    monkeypatch.setattr("ganjax.interop.weights.read_state", lambda path: officials[path.stem])
    assert list(import_run(tmp_path, tmp_path / "run", biggan.tiny())) == ["G", "G_ema"]
    source = json.loads((tmp_path / "run" / "import.json").read_text())
    assert source["sha256"][str(tmp_path / "G.pth")] == hashlib.sha256(b"G").hexdigest()
    assert same(officials["G"], restored(tmp_path / "run")["G"])


def test_what_a_file_lacks_starts_anew(officials, tmp_path):
    file = write(tmp_path / "ema.safetensors", {"G_ema": officials["G_ema"]})
    assert list(import_run(file, tmp_path / "run", biggan.tiny())) == ["G_ema"]
    found = restored(tmp_path / "run")
    assert same(officials["G_ema"], found["G_ema"]) and same(officials["G_ema"], found["G"])
    assert not same(officials["D"], found["D"])
    file = write(tmp_path / "G_best0.safetensors", {"G": officials["G"]})
    assert list(import_run(file, tmp_path / "run-2", biggan.tiny())) == ["G"]
    assert same(officials["G"], restored(tmp_path / "run-2")["G_ema"])
    file = write(tmp_path / "D.safetensors", {"D": officials["D"]})
    with pytest.raises(ValueError, match="no generator in it, only D"):
        import_run(file, tmp_path / "run-3", biggan.tiny())


def test_entries_that_have_no_place_and_numbers_that_are_none(officials, tmp_path):
    state = officials["G_ema"]
    file = write(tmp_path / "a.safetensors", {"G_ema": {**state, "theta": np.ones(1)}})
    with pytest.raises(ValueError, match=r"no place for[^$]*1 unexpected:\s+theta"):
        import_run(file, tmp_path / "run", biggan.tiny())
    file = write(
        tmp_path / "b.safetensors", {"G_ema": {**state, "linear.bias": np.full(128, np.nan)}}
    )
    with pytest.raises(
        ValueError, match=r"b\.safetensors: G_ema: linear\.bias and 0 more entries have NaN"
    ):
        import_run(file, tmp_path / "run", biggan.tiny())
    half = {name: array.astype(np.float16) for name, array in state.items()}
    import_run(
        write(tmp_path / "half.safetensors", {"G_ema": half}), tmp_path / "run", biggan.tiny()
    )
    np.testing.assert_array_equal(
        restored(tmp_path / "run")["G"]["linear.weight"], half["linear.weight"].astype(np.float32)
    )


@pytest.mark.slow
def test_the_command_line(tmp_path):
    def main(*arguments):
        result = subprocess.run(
            [sys.executable, "-m", "ganjax.main", *arguments], capture_output=True, text=True
        )
        return result.returncode, result.stdout, result.stderr

    run = f"--workdir={tmp_path / 'run'}"
    code, said, wrong = main("--mode=import", f"--weights={SNAPSHOT}", run, "--config.seed=7")
    assert code == 0, wrong
    assert "G_ema: 58 entries matched" in said and "is a run: --mode=sample" in said
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 7
    # It goes on by its own config, which asks for the data of the snapshot.
    code, _, wrong = main(run)
    assert code == 2 and "data.zip" in wrong and "Traceback" not in wrong
    code, _, wrong = main("--mode=import", run)
    assert code == 2 and "Give --weights=network-snapshot.pkl" in wrong
