import importlib
import pathlib

import pytest

from ganjax import defaults
from ganjax.defaults import FieldRule
from ganjax.family import build, settle

RULES = (
    FieldRule("train.batch", lambda config, devices: 4 * devices, "four a device"),
    FieldRule("train.rate", lambda config, devices: config.train.batch / 2, "half of the batch"),
)


def example(**train):
    return defaults.config("a.family", train={"batch": None, "rate": None} | train)


def test_a_family_states_its_own_and_replaces_shared_fields():
    config = defaults.config("a.family", model=dict(size=3), log=dict(grid_rows=2))
    assert (config.family, config.model.size, config.log.grid_rows) == ("a.family", 3, 2)
    assert config.log.scalars_every_images == defaults.config("b").log.scalars_every_images


def test_every_value_is_a_new_one():
    defaults.config("a").mesh.fsdp = 4
    assert defaults.config("b").mesh.fsdp == 1


def test_rules_follow_one_another():
    config, lines = defaults.follow(RULES, example(), devices=3)
    assert (config.train.batch, config.train.rate) == (12, 6.0) and config.is_locked
    assert lines == ["train.batch = 12: four a device", "train.rate = 6: half of the batch"]


def test_what_is_set_stays():
    config, lines = defaults.follow(RULES, example(batch=10), devices=3)
    assert (config.train.batch, config.train.rate) == (10, 5.0)
    assert lines == ["train.rate = 5: half of the batch"]


def test_a_run_goes_on_as_it_began():
    config, lines = defaults.follow(RULES, example(), 3, begun=example(batch=7, rate=1.0))
    assert (config.train.batch, config.train.rate) == (7, 1.0)
    assert lines[0] == "train.batch = 7: as the run began"


def auto(resolution, devices):
    config = importlib.import_module("configs.stylegan2").get_config("auto")
    config.data.resolution = resolution
    return settle(config, devices)


@pytest.mark.parametrize(
    ("resolution", "devices", "batch", "group", "channels", "rate", "gamma", "half_life"),
    [
        (256, 1, 16, 4, 16384, 2.5e-3, 0.8192, 5000),
        (256, 8, 64, 4, 16384, 2.5e-3, 0.2048, 20_000),
        (1024, 8, 32, 4, 32768, 2e-3, 6.5536, 10_000),
        (512, 2, 16, 4, 32768, 2.5e-3, 3.2768, 5000),
        (32, 1, 32, 4, 16384, 2.5e-3, 0.0064, 10_000),
        (1024, 128, 128, 1, 32768, 2e-3, 1.6384, 40_000),
    ],
)
def test_auto_is_the_official_one(
    resolution, devices, batch, group, channels, rate, gamma, half_life
):
    """By hand from "auto" of stylegan2-ada-pytorch's train.py."""
    config, lines = auto(resolution, devices)
    assert (config.train.batch, config.model.group_size) == (batch, group)
    assert config.model.g_channel_base == config.model.d_channel_base == channels
    assert config.optimizer.g_lr == config.optimizer.d_lr == rate
    assert config.loss.r1_gamma == pytest.approx(gamma)
    assert config.ema.half_life_images == half_life and config.ema.ramp_up == 0.05
    assert config.model.mapping_layers == 2
    assert f"train.batch = {batch}: as many as 4096 / resolution" in lines[0]
    assert len(lines) == 9


def test_what_no_rule_has_set_is_an_error():
    config = importlib.import_module("configs.stylegan2").get_config("auto")
    with pytest.raises(ValueError, match=r"config.train.batch=None is to be set by a rule"):
        build(config, "cpu")


def test_presets_other_than_auto_hold_numbers():
    module = importlib.import_module("configs.stylegan2")
    for name in set(module.PRESETS) - {"auto"}:
        _, lines = settle(module.get_config(name), devices=2)
        assert not lines, f"{name}: {lines}"


def test_the_sources_of_all_configs_are_in_their_docstrings():
    for file in pathlib.Path("configs").glob("[a-z]*.py"):
        module = importlib.import_module(f"configs.{file.stem}")
        listed = {line.split()[0] for line in module.__doc__.splitlines() if line.strip()}
        assert set(module.PRESETS) <= listed, file
