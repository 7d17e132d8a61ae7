"""The collapse watch measures what it says, and stops by its rules and no sooner."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.spectral import SpectralDense
from ganjax.metrics import watch
from ganjax.metrics.watch import CollapseError, CollapseWatch, Rules

RNG = np.random.default_rng(0)
REAL = RNG.uniform(-1, 1, (12, 4, 4, 3)).astype(np.float32)
LABELS = np.arange(12) % 3


def checks(rules, values, state=None, start=0):
    """How many of the values pass before the watch stops the run, and its message."""
    guard = CollapseWatch(rules, state)
    for number, value in enumerate(values):
        try:
            guard.check(start + number, value)
        except CollapseError as error:
            return number, str(error)
    return len(values), ""


def test_sigmas_are_the_first_singular_values_of_the_layers():
    layer = SpectralDense(5, values=2)
    variables = layer.init(jax.random.key(0), jnp.ones((1, 7)))
    step = jax.jit(lambda v: layer.apply(v, jnp.ones((1, 7)), mutable=["spectral"])[1])
    for _ in range(30):
        variables = {**variables, **step(variables)}
    found = watch.sigmas({"g": {"first": variables["spectral"]}, "d": {}})
    expected = np.linalg.svd(variables["params"]["kernel"], compute_uv=False)[0]
    assert list(found) == ["sigma/g/first", "sigma/g/max"]
    assert found["sigma/g/first"] == pytest.approx(expected, rel=1e-3)


def test_the_largest_sigma_is_that_of_the_player_and_keeps_a_nan():
    tree = {
        name: {"u": np.ones(2), "sigma": np.array([s, 9.0])} for name, s in zip("abc", (2, 5, 3))
    }
    found = watch.sigmas({"g": tree, "d": {"a": {"sigma": np.array([7.0])}}})
    assert found["sigma/g/max"] == 5 and found["sigma/d/max"] == 7
    tree["c"]["sigma"] = np.array([np.nan])
    assert math.isnan(watch.sigmas({"g": tree})["sigma/g/max"])


def test_diversity_is_the_mean_distance_of_pairs():
    flat = REAL.reshape(12, -1)
    pairs = [(i, j) for i in range(12) for j in range(i)]
    within = [(i, j) for i, j in pairs if LABELS[i] == LABELS[j]]
    for labels, chosen in ((None, pairs), (LABELS, within)):
        expected = np.mean([np.linalg.norm(flat[i] - flat[j]) for i, j in chosen])
        assert float(watch.diversity(REAL, labels)) == pytest.approx(expected, rel=1e-5)


def test_diversity_of_nearly_equal_images_is_exact_enough():
    equal = np.repeat(REAL[:1], 12, axis=0) + 100
    assert float(watch.diversity(equal)) < 1e-4
    near = (equal + REAL / 100).astype(np.float64)
    expected = float(watch.diversity(near - near[0]))
    assert float(watch.diversity(near.astype(np.float32))) == pytest.approx(expected, rel=1e-2)
    twins = np.concatenate([equal + 1e-5 * REAL, -equal])
    assert float(watch.diversity(twins, np.arange(24) // 12)) < 0.1


def test_relative_diversity_sees_a_class_collapse_through_its_labels():
    fake = REAL[LABELS]  # one image a class
    assert watch.relative_diversity(REAL / 2, REAL) == pytest.approx(0.5, rel=1e-5)
    assert watch.relative_diversity(fake, REAL) > 0.5
    assert watch.relative_diversity(fake, REAL, LABELS, LABELS) < 1e-3


def test_relative_diversity_without_pairs_of_a_class_takes_all_pairs():
    alone = np.arange(12)
    for fake_labels, real_labels in ((alone, LABELS), (LABELS, alone)):
        ratio = watch.relative_diversity(REAL / 2, REAL, fake_labels, real_labels)
        assert ratio == pytest.approx(0.5, rel=1e-5)


def test_relative_diversity_needs_real_images_that_differ():
    assert watch.relative_diversity(REAL, np.zeros_like(REAL)) is None
    assert watch.relative_diversity(REAL, REAL[:1]) is None
    assert watch.relative_diversity(REAL[:1], REAL) is None


TREE = {
    "a": np.arange(3),
    "d": {"params": {"bias": np.ones(3, np.float32), "kernel": np.ones((2, 3), np.float32)}},
    "g": {"params": {"kernel": jnp.ones((4, 4), jnp.bfloat16)}},
}


def broken(*places):
    tree = jax.tree.map(np.array, TREE)
    for player, name, index, value in places:
        tree[player]["params"][name].flat[index] = value
    return tree


def test_finite_trees_pass():
    assert watch.nonfinite(TREE) == {}
    assert watch.nonfinite({}) == {} and watch.nonfinite({"step": 3}) == {}
    watch.check_finite(5, losses={"d/main/loss": 0.5}, players=TREE)


def test_every_tensor_that_is_not_finite_is_found():
    tree = broken(
        ("g", "kernel", 3, np.inf), ("g", "kernel", 5, np.nan), ("d", "kernel", 1, -np.inf)
    )
    assert watch.nonfinite(tree) == {"d/params/kernel": (0, 1), "g/params/kernel": (1, 1)}
    for place in (("d", "bias", 0, np.nan), ("d", "kernel", 5, np.inf), ("g", "kernel", 0, np.nan)):
        assert list(watch.nonfinite(broken(place))) == [f"{place[0]}/params/{place[1]}"]


def test_only_a_bad_tree_is_counted(monkeypatch):
    monkeypatch.setattr(watch, "_count", None)
    assert watch.nonfinite(TREE) == {}


def test_the_error_names_the_first_tensor_of_each_tree():
    tree = broken(("d", "kernel", 1, np.nan), ("g", "kernel", 3, np.inf))
    with pytest.raises(CollapseError) as error:
        watch.check_finite(640, losses={"d/main/loss": np.nan, "g/main/loss": 1.0}, players=tree)
    message = str(error.value)
    assert message.startswith("At 640 images losses/d/main/loss has 1 NaN and 0 infinite values; ")
    assert "players/d/params/kernel has 1 NaN and 0 infinite values (and 1 more tensors)" in message


def test_healthy_values_never_stop_a_run():
    values = [
        {"diversity": 0.8, "logit_gap": 1.5, "sigma/g/a": 1.2**i, "sigma/g/max": 1.2**i}
        for i in range(30)
    ]
    assert checks(Rules(), values) == (30, "")


@pytest.mark.parametrize(
    ("rule", "good", "bad", "word"),
    [
        ("min_diversity", {"diversity": 0.2}, {"diversity": 0.01}, "samples differ 0.01 times"),
        ("max_logit_gap", {"logit_gap": 3.0}, {"logit_gap": 60.0}, "logit gap is 60"),
        ("max_logit_gap", {"logit_gap": 3.0}, {"logit_gap": -60.0}, "logit gap is -60"),
        ("min_logit_gap", {"logit_gap": 3.0}, {"logit_gap": -0.02}, "was up to 3, so D no longer"),
        (
            "max_sigma",
            {"sigma/g/a": 1.0, "sigma/g/b": 9000.0, "sigma/g/max": 9000.0},
            {"sigma/g/a": 1.0, "sigma/g/b": 2e4, "sigma/g/max": 2e4},
            "g/b is 2e+04",
        ),
        (
            "max_sigma_growth",
            {"sigma/g/a": 1.0, "sigma/d/b": 2.0},
            {"sigma/g/a": 1.0, "sigma/d/b": 40.0},
            "d/b is 40, 20 times",
        ),
    ],
)
def test_a_rule_stops_the_run_after_its_patience(rule, good, bad, word):
    count, message = checks(Rules(patience=3), [good, good, bad, bad, bad])
    assert count == 4 and word in message
    assert "Collapse at 4 images" in message and f"watch.{rule}=" in message
    # A good check in between starts the count again.
    assert checks(Rules(patience=3), [good, bad, bad, good, bad, bad, good])[0] == 7
    # None turns this rule off, and leaves the others on.
    assert checks(Rules(patience=3, **{rule: None}), [good, bad, bad, bad, bad])[0] == 5


def test_an_explosion_does_not_become_usual_but_slow_growth_does():
    steady = [{"sigma/g/a": 1.0}] * 3
    assert checks(Rules(patience=20), steady + [{"sigma/g/a": 50.0}] * 30)[0] == 22
    assert checks(Rules(patience=1), [{"sigma/g/a": 1.2**i} for i in range(40)])[0] == 40


def test_a_gap_is_missed_only_where_there_was_one():
    assert checks(Rules(), [{"logit_gap": 0.4}] + [{"logit_gap": 0.0}] * 9)[0] == 10
    assert checks(Rules(patience=1), [{"logit_gap": 0.6}, {"logit_gap": 0.0}])[0] == 1


def test_values_that_are_no_number_stop_the_run_at_once():
    assert "diversity is nan" in checks(Rules(), [{"diversity": float("nan")}])[1]
    assert "sigma/g/a is inf" in checks(Rules(), [{"sigma/g/a": float("inf")}])[1]
    assert checks(Rules(), [{"diversity": None}] * 9) == (9, "")


def test_the_state_goes_through_json_and_goes_on_where_it_stopped():
    good, bad = (
        {"sigma/g/a": 1.0, "sigma/g/max": 1.0, "diversity": 0.5, "logit_gap": 2.0},
        {"sigma/g/a": 30.0, "diversity": 0.01, "logit_gap": 0.0},
    )
    guard = CollapseWatch(Rules(patience=3))
    for values in (good, good, bad, bad):
        guard.check(0, values)
    state = json.loads(json.dumps(guard.state()))
    assert "usual/g/a" in state and "usual/g/max" not in state
    assert all(isinstance(value, float) for value in state.values())
    assert CollapseWatch(Rules(patience=3), state).state() == guard.state()
    assert checks(Rules(patience=3), [bad], state)[0] == 0
    growth_alone = Rules(patience=3, min_diversity=None)
    assert checks(growth_alone, [{"sigma/g/a": 30.0}], state)[0] == 0
    assert checks(growth_alone, [{"sigma/g/a": 30.0}])[0] == 1


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        ({"patience": 0}, "watch.patience is 0; at least 1 check"),
        ({"min_diversity": 0.0}, "watch.min_diversity is 0.0; a positive number"),
        ({"max_sigma": -1.0}, "watch.max_sigma is -1.0; a positive number"),
    ],
)
def test_rules_that_make_no_sense_are_refused(bad, wanted):
    with pytest.raises(ValueError, match=wanted):
        Rules(**bad)
