"""Who decides how strongly images are augmented; the rule's numbers are the goldens', too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ganjax.adversarial.ada import Adaptive, Fixed, from_config
from ganjax.adversarial.augment import pipe

SECTION = dict(mode="ada", pipe="bgc", p=0.0, target=0.6, every=4, ramp_images=500_000)


def section(**more):
    return ConfigDict({**SECTION, **more})


def test_p_rises_while_d_knows_the_reals_and_falls_when_it_does_not():
    rule = Adaptive(pipe("bg"), 0.5, batch=10, every=2, ramp_images=100)
    extras = rule.extras()
    sure, unsure = jnp.array([3.0, 2, 1, 1]), jnp.array([1.0, 1, -1, 0])

    def play(extras, *logits, step):
        for microbatch in logits:
            extras = {**extras, **rule.observe(extras, microbatch)}
        return rule.adjust(extras, step)

    first = play(extras, sure, step=1)
    assert (first["ada_p"], first["ada_signs"], first["ada_reals"]) == (0.5, 4, 4)
    # Mean of signs: (4 + 1) / 8, above 0.6; a logit of zero counts as a real without a sign.
    second = play(first, unsure, step=2)
    assert float(second["ada_p"]) == pytest.approx(0.7)
    assert (second["ada_signs"], second["ada_reals"]) == (0, 0)
    fourth = play(play(second, unsure, step=3), unsure, step=4)
    assert float(fourth["ada_p"]) == pytest.approx(0.5)
    for start, logits, end in ((0.1, unsure, 0.0), (0.9, sure, 1.1)):  # a floor and no ceiling
        at = {**second, "ada_p": np.float32(start)}
        assert float(play(at, logits, step=6)["ada_p"]) == pytest.approx(end)


def test_other_scalars_of_the_game_are_left_alone():
    rule = Adaptive(pipe("bg"), every=1)
    extras = {**rule.extras(), "path_mean": np.float32(3)}
    assert rule.adjust(extras, 1)["path_mean"] == 3
    assert set(rule.observe(extras, jnp.ones(3))) == {"ada_signs", "ada_reals"}
    assert {f"extras/{name}" for name in rule.observe(extras, jnp.ones(3))} == set(rule.writes)


def test_reals_are_counted_over_all_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    rule = Adaptive(pipe("bg"), every=1)
    logits = np.random.default_rng(0).normal(size=16).astype(np.float32)
    seen = jax.jit(rule.observe)(rule.extras(), jax.device_put(logits, place))
    assert (seen["ada_signs"], seen["ada_reals"]) == (np.sign(logits).sum(), 16)


def test_a_fixed_p_has_no_state():
    rule = from_config(section(mode="fixed", p=1), batch=8)
    assert isinstance(rule, Fixed) and rule.probability({}) == 1
    assert rule.extras() == rule.observe({}, jnp.ones(2)) == rule.adjust({}, 1) == {}
    assert rule.writes == ()


def test_the_section_of_a_config():
    assert from_config(section(mode="none"), batch=8) is None
    rule = from_config(section(target=0.5), batch=8)
    assert rule == Adaptive(pipe("bgc"), 0.0, 8, 0.5, 4, 500_000)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (dict(mode="on"), "augment.mode='on'; set ada .*, fixed .* or none"),
        (dict(mode="fixed", p=1.5), "augment.p=1.5 is no probability; set 0 to 1"),
        (dict(target=1.0), "augment.target=1: .* Set config.augment.target to"),
        (dict(every=0), "augment.every=0 and .*; set both to more than 0"),
        (dict(ramp_images=0), "ramp_images=0; set both"),
        (dict(pipe="all"), "augment.pipe='all' is no pipe"),
    ],
)
def test_values_that_cannot_be(more, said):
    with pytest.raises(ValueError, match=said):
        from_config(section(**more), batch=8)
