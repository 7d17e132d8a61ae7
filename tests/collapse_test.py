"""The watch of a run measures its state and real batch, remembers, and names what is broken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import biggan
from ganjax import family as families
from ganjax.collapse import Watch
from ganjax.metrics.watch import CollapseError
from ganjax.parallel.mesh import make_mesh

FAMILY = families.build(biggan.tiny(), "cpu")
MESH = make_mesh(devices=jax.devices()[:1])
BATCH = {
    "image": np.random.default_rng(0).integers(256, size=(1, 1, 8, 32, 32, 1), dtype=np.uint8),
    "label": np.arange(8, dtype=np.int32)[None, None] % 2,
}
VALUES = {"d/main/logit_real": 1.5, "d/main/logit_fake": -1.0, "g/main/loss": 0.1}


def watch(**limits):
    config = biggan.tiny()
    config.watch.update(limits)
    return Watch(FAMILY, MESH, config)


@pytest.fixture(scope="module")
def state():
    return jax.device_put(FAMILY.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def measured(state):
    return watch().measure(state, BATCH, VALUES)


def test_every_spectral_layer_the_gap_and_the_diversity_are_measured(measured):
    assert measured["logit_gap"] == 2.5
    assert 0 < measured["diversity"] < 2
    assert {"sigma/g/max", "sigma/d/max", "sigma/g/linear", "sigma/d/embed"} <= measured.keys()
    assert len(measured) == 4 + sum(
        name.startswith("sigma/") and not name.endswith("/max") for name in measured
    )


def test_real_images_are_the_measure_of_diversity(state, measured):
    flat = {**BATCH, "image": (BATCH["image"] // 4) + 96}
    ratio = watch().measure(state, flat, {})["diversity"] / measured["diversity"]
    assert ratio == pytest.approx(4, rel=0.05)


def test_a_family_without_spectral_norm_or_two_logits_is_measured_all_the_same(state):
    plain = state.players["d"].replace(collections={})
    measured = watch().measure(
        state.replace(players={**state.players, "d": plain}), BATCH, {"g/main/loss": 0.1}
    )
    assert "sigma/g/max" in measured and "sigma/d/max" not in measured
    assert "logit_gap" not in measured


def test_patience_survives_a_restart(state, measured):
    bad = {**measured, "diversity": 0.001}
    first = watch(patience=2)
    first.check(64, bad, state)
    second = watch(patience=2)
    second.remember(first.memory() | {"fd_digits": 3.0})
    with pytest.raises(CollapseError, match="samples differ 0.001 times.*2 checks in a row"):
        second.check(128, bad, state)
    watch(patience=2).check(128, bad, state)


def test_a_loss_that_is_no_number_names_the_tensor(state):
    d = state.players["d"]
    params = {**d.params, "linear": jax.tree.map(lambda x: x * jnp.nan, d.params["linear"])}
    broken = state.replace(players={**state.players, "d": d.replace(params=params)})
    with pytest.raises(CollapseError, match="At 64 images players/d/params/linear/bias has 1 NaN"):
        watch().check(64, {"d/main/loss": float("nan")}, broken)
    # Nothing but the loss itself may be broken.
    with pytest.raises(CollapseError, match="d/main/loss is nan"):
        watch().check(64, {"d/main/loss": float("nan")}, state)
