"""State dicts of the released code, whose names and layouts the golden cases have."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import styleganv as configs
from ganjax import generate
from ganjax.families.styleganv import official
from ganjax.families.styleganv.networks import example_inputs
from ganjax.family import build
from ganjax.importer import import_run
from ganjax.layers.initializers import init_on_host

VARIANTS = [
    {"model.trajectory": "lstm"},
    {"model.encoding": "mapped"},
    {"model.join": "styles"},
    {"model.discriminator": "paper"},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: " ".join(changes.values()))
def test_every_variant_goes_out_and_comes_back(changes):
    config = configs.tiny()
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    for module in build(config, "cpu").networks.values():
        args, kwargs = example_inputs(module)
        variables = init_on_host(module, jax.random.key(0), *args, **kwargs)
        state = official.to_official(variables, module) | official.constants(module)
        back, report = official.from_official(state, module)
        assert report.complete and set(report.matched) == set(state)
        jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_names_of_the_released_code():
    modules = build(configs.tiny(), "cpu").networks
    names = {name for entry in official.entries(modules["g"]) for name in entry.names}
    assert {
        "synthesis.motion_encoder.conv.1.weight",
        "synthesis.motion_encoder.time_encoder.aligners_predictor.weight",
        "synthesis.b4.input.input.const",
        "mapping.embed.weight",
    } <= names
    names = {name for entry in official.entries(modules["d"]) for name in entry.names}
    assert {"time_encoder.const_embed.weight", "b16.conv0.weight", "mapping.fc1.bias"} <= names


def test_other_periods_than_the_checkpoints_are_an_error():
    module = build(configs.tiny(), "cpu").networks["g"]
    args, kwargs = example_inputs(module)
    variables = init_on_host(module, jax.random.key(0), *args, **kwargs)
    state = official.to_official(variables, module) | official.constants(module)
    state["synthesis.motion_encoder.time_encoder.freqs"] *= 2
    with pytest.raises(ValueError, match="time_encoder.freqs is the constant .* motion, join"):
        official.from_official(state, module)


def test_state_dicts_become_a_run(tmp_path):
    config = configs.tiny()
    family = build(config, "cpu")
    state = family.init(jax.random.key(3))
    written = {}
    for name, player in {"G": "g", "D": "d", "G_ema": "g"}.items():
        module, variables = family.networks[player], state.players[player].variables
        entries = official.to_official(variables, module) | official.constants(module)
        written |= {f"{name}.{key}": array for key, array in entries.items()}
    save_file(written, tmp_path / "weights.safetensors")
    reports = import_run(tmp_path / "weights.safetensors", tmp_path / "run", config)
    assert set(reports) == {"G", "D", "G_ema"} and all(r.complete for r in reports.values())
    model = generate.load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, model.variables, state.ema)
    assert model.sample(2).shape == (2, 3, 16, 16, 3)
