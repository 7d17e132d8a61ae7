import sys
import textwrap

import pytest
from absl import flags
from ml_collections import ConfigDict

from ganjax import config as configs
from ganjax.config import ConfigError


def example():
    return ConfigDict(
        dict(
            train=dict(images=1000, batch=32),
            optimizer=dict(lr=1e-3, nesterov=False),
            data=dict(source="digits", resolution=32, threads=2),
            model=dict(attention=(64,), nothing=None, nested=((1, 2), (3.5, "a"))),
            log=dict(every=10),
        )
    )


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder of config files, which is also the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "toy.py").write_text(
        textwrap.dedent(
            """
            from ml_collections import ConfigDict
            from ganjax.config import choose_preset

            def get_config(preset="small"):
                sizes = {"small": 1, "large": 2}
                return ConfigDict({"train": {"images": choose_preset(sizes, preset)}})
            """
        )
    )
    (tmp_path / "configs" / "other.py").write_text("def get_config(): return None")
    (tmp_path / "configs" / "empty.py").write_text("")
    return tmp_path


# Keeping a config.


def test_json_gives_the_config_back():
    config = example()
    back = configs.from_json(configs.to_json(config))
    assert configs.flatten(back) == configs.flatten(config)
    assert back.model.nested == ((1, 2), (3.5, "a"))
    assert isinstance(back.model.attention, tuple)
    assert type(back.train.images) is int
    assert back.is_locked


def test_json_does_not_depend_on_the_order_of_fields():
    one = ConfigDict({"a": 1, "b": {"c": 2, "d": 3}}, sort_keys=False)
    other = ConfigDict({"b": {"d": 3, "c": 2}, "a": 1}, sort_keys=False)
    assert configs.to_json(one) == configs.to_json(other)


def test_json_names_the_field_that_it_cannot_hold():
    config = example()
    config.model.attention = (1, object())
    with pytest.raises(ConfigError, match=r"config\.model\.attention\[1\] is a object"):
        configs.to_json(config)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_broken_stored_config_is_an_error(text):
    with pytest.raises(ConfigError, match="stored config is"):
        configs.from_json(text)


def test_diff_names_what_changed_came_and_went():
    old, new = example(), example()
    new.train.images = 2000
    new.model.attention = [64]  # what JSON makes of a tuple: no difference
    with new.unlocked():
        del new.data.threads
        new.data.flip = True
    assert configs.diff(old, new) == ["data.flip", "data.threads", "train.images"]


def test_numbers_that_are_too_small_are_named():
    config = ConfigDict({"train": {"batch": 0, "rate": 0.5}})
    configs.at_least(config, {"train.rate": 0.5, "train.absent": 3})
    with pytest.raises(ConfigError, match=r"config.train.batch=0 is too small; set 1 or more"):
        configs.at_least(config, {"train.rate": 0, "train.batch": 1})


def test_a_run_may_go_on_longer_and_elsewhere():
    old, new = example(), example()
    new.train.images, new.log.every, new.data.threads = 2000, 1, 8
    changed = configs.check_resume(old, new, "runs/x")
    assert changed == ["data.threads", "log.every", "train.images"]


def test_tokens_may_meet_their_experts_otherwise():
    config = {"execution": ("dropless",), "capacity_factor": 1.25, "experts": (2,)}
    old, new = (ConfigDict({"model": dict(config)}) for _ in range(2))
    new.model.update(execution=("parallel",), capacity_factor=2.0)
    assert configs.check_resume(old, new, "x") == ["model.capacity_factor", "model.execution"]
    new.model.experts = (4,)
    with pytest.raises(ConfigError, match="model.experts"):
        configs.check_resume(old, new, "x")


def test_a_run_may_not_become_another():
    old, new = example(), example()
    new.train.images, new.train.batch = 2000, 64
    with new.unlocked():
        new.optimizer.eps = 1e-8
    with pytest.raises(ConfigError) as error:
        configs.check_resume(old, new, "runs/x")
    text = str(error.value)
    assert "train.batch: 32 then, 64 now" in text
    assert "optimizer.eps: absent then, 1e-08 now" in text
    assert "train.images" not in text
    assert "runs/x" in text and "--workdir" in text


# Files and presets.


def test_load_chooses_the_preset(files):
    assert configs.load("configs/toy.py").train.images == 1
    assert configs.load("configs/toy.py:large").train.images == 2
    assert configs.load("configs/toy.py").is_locked


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("configs/toy.py:lrage", ["no preset 'lrage'", "did you mean 'large'", "small, large"]),
        ("configs/tot.py", ["no config file", "did you mean 'configs/toy.py'?", "other.py"]),
        ("toy", ["no config file 'toy'", "configs/toy.py"]),
        ("configs/empty.py", ["has no get_config"]),
        ("configs/other.py:x", ["has no presets", "leave out ':x'"]),
    ],
)
def test_a_wrong_path_says_what_there_is(files, path, words):
    with pytest.raises(ConfigError) as error:
        configs.load(path)
    for word in words:
        assert word in str(error.value)


# Overrides.


def test_split_takes_the_overrides_out():
    argv = (
        "main --config=a.py --config.a.b=1 --mode=x --config.c 2 --config.d --noconfig.e -config.f"
    )
    rest, overrides = configs.split([*argv.split(), "--config.a.b==3", "--config.g", "-1"])
    assert rest == ["main", "--config=a.py", "--mode=x"]
    want = {"a.b": "=3", "c": "2", "d": "true", "e": "false", "f": "true", "g": "-1"}
    assert overrides == want


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("train.images", "5", 5),
        ("train.images", "1e6", 1_000_000),
        ("train.images", "1_000", 1000),
        ("train.images", "-1", -1),
        ("optimizer.lr", "1", 1.0),
        ("optimizer.lr", "2e-4", 2e-4),
        ("optimizer.nesterov", "true", True),
        ("optimizer.nesterov", "False", False),
        ("data.source", "5", "5"),
        ("data.source", "", ""),
        ("data.resolution", "64", 64),
        ("data.resolution", "(64, 32)", (64, 32)),
        ("model.attention", "(32, 64)", (32, 64)),
        ("model.attention", "32,64", (32, 64)),
        ("model.attention", "32", (32,)),
        ("model.attention", "()", ()),
        ("model.nothing", "3", 3),
        ("model.nothing", "word", "word"),
        ("model.nothing", "None", None),
    ],
)
def test_override_reads_the_type_of_the_field(name, text, value):
    config = example()
    changed = configs.override(config, {name: text})
    found = configs.flatten(changed)[name]
    assert found == value and type(found) is type(value)
    assert configs.diff(config, changed) in ([name], [])
    assert configs.flatten(config) == configs.flatten(example())  # a copy
    assert changed.is_locked


def test_a_rule_of_the_watch_is_turned_off_by_none():
    config = ConfigDict({"watch": {"min_diversity": 0.05, "patience": 3}})
    off = configs.override(config, {"watch.min_diversity": "None"})
    assert off.watch.min_diversity is None
    assert configs.override(off, {"watch.min_diversity": "0.1"}).watch.min_diversity == 0.1
    with pytest.raises(ConfigError, match="a number or None"):
        configs.override(config, {"watch.min_diversity": "off"})
    with pytest.raises(ConfigError, match="an integer"):
        configs.override(config, {"watch.patience": "None"})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("train.imges", "5", ["did you mean --config.train.images?"]),
        ("trian.images", "5", ["did you mean --config.train.images?"]),
        ("optimizer.images", "5", ["--config.train.images"]),  # right name, wrong group
        ("train.images.x", "5", ["did you mean --config.train.images?"]),
        ("data.zzz", "5", ["There are: data.resolution, data.source, data.threads"]),
        ("zzz", "5", ["There are: data, log, model, optimizer, train"]),
        ("train", "5", ["is a group", "--config.train.batch, --config.train.images"]),
        ("train.images", "abc", ["train.images is an integer (here 1000)", "'abc'"]),
        ("train.images", "1.5", ["is an integer"]),
        ("train.images", "inf", ["is an integer"]),
        ("train.images", "None", ["is an integer"]),
        ("train.images", "", ["is an integer"]),
        ("optimizer.lr", "x", ["is a number"]),
        ("optimizer.nesterov", "maybe", ["is true or false"]),
        ("model.attention", "x", ["is a tuple"]),
        ("model.attention", "(1,", ["is a tuple"]),
        ("data.resolution", "(1, 2, 3)", ["one number or"]),
        ("data.resolution", "1.5", ["one number or"]),
    ],
)
def test_a_wrong_override_says_what_was_meant(name, text, words):
    with pytest.raises(ConfigError) as error:
        configs.override(example(), {name: text})
    for word in words:
        assert word in str(error.value)


# The command line.


@pytest.fixture
def main(monkeypatch):
    """``main(*argv)`` runs a program with --config and --mode: the config and mode that it got."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    flags.DEFINE_string("config", "configs/toy.py", "", values)
    flags.DEFINE_string("mode", "train", "", values)

    def run_app(call, flags_parser):
        return call(flags_parser(sys.argv))

    monkeypatch.setattr(configs.app, "run", run_app)

    def call(*argv):
        called = []
        monkeypatch.setattr(sys, "argv", ["main", *argv])

        def program(overrides):
            called.append(configs.override(configs.load(values.config), overrides))

        configs.run(program)
        return called[0], values.mode

    return call


def test_run_hands_the_overrides_to_main(files, main):
    config, mode = main("--config=configs/toy.py:large", "--config.train.images=7", "--mode=plan")
    assert config.train.images == 7 and mode == "plan"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.train.imges=7", "error: --config.train.imges: there is no such field"),
        ("--config=configs/toy.py:largo", "error: There is no preset 'largo'"),
        ("--mod=plan", "Did you mean: mode"),
        ("configs/toy.py", "did you mean --config=configs/toy.py?"),
    ],
)
def test_run_answers_a_mistake_in_one_paragraph(files, main, capsys, argument, words):
    with pytest.raises(SystemExit) as exit_:
        main(argument)
    assert exit_.value.code == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert "Traceback" not in shown
