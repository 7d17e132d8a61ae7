"""Snapshots of the released code, whose options lie in an OmegaConf configuration."""

import pathlib

import jax
import numpy as np
import pytest

from configs import styleganv as configs
from ganjax.config import load
from ganjax.families.styleganv import official
from ganjax.family import build
from ganjax.interop.weights import read_weights

FIXTURE = pathlib.Path(__file__).parents[2] / "interop" / "data" / "styleganv.pkl"


@pytest.fixture
def found():
    return read_weights(FIXTURE)


@pytest.fixture
def options(found):
    """Nodes of the configuration, of which G, D and the data have a copy each."""

    def of(name, path):
        node = found.modules[name].attributes["cfg"]
        for part in path.split("."):
            node = node.content[part]
        return node

    return of


def test_a_snapshot_of_the_reference_code_makes_its_frames(found):
    assert found.family == "styleganv"
    config = official.configured(load(official.CONFIG), found)
    assert config.model.to_dict() == configs.get_config().model.to_dict() | dict(
        conditional=True,
        latent_dim=6,
        w_dim=8,
        g_channel_base=64,
        d_channel_base=32,
        channel_max=8,
        group_size=2,
        narrow=2,
        motion_noise_dim=5,
        motion_dim=7,
        motion_taps=3,
        motion_distance=8,
        waves=4,
        shortest_period=8.0,
        longest_period=32.0,
        join_resolution=8,
        told_dim=256,
    )
    assert dict(config.data.clip) == dict(
        times="sparse", frames=3, max_frames=64, max_dist=16, dists=(1, 2, 4, 8, 16), rate=25.0
    )
    assert (config.data.source, config.data.path) == ("zip", "./clips.zip")
    golden = np.load(FIXTURE.with_suffix(".npz"))
    networks, variables = build(config, "cpu").networks, {}
    for name, player in {"G_ema": "g", "D": "d"}.items():
        variables[player], report = official.from_official(found.states[name], networks[player])
        assert report.complete and len(report.matched) == len(found.states[name])
    inputs = [golden[name] for name in ("z", "times", "noise", "label")]
    frames = jax.jit(networks["g"].apply)(variables["g"], *inputs)
    np.testing.assert_allclose(frames, golden["frames"], atol=2e-5)


def test_other_options_of_the_released_code(found, options):
    options("G_ema", "motion.gen_strategy").content = "autoregressive"
    options("G_ema", "time_enc.cond_type").content = "concat_w"
    options("D", "dummy_c").content = True
    model = official.configured(load(official.CONFIG), found).model
    assert (model.trajectory, model.join, model.projected) == ("lstm", "styles", "blank")
    assert (model.encoding, model.motion_taps) == ("waves", 11)
    # Of what networks see, G's copy tells: it is that of the fakes.
    sampling = found.modules["G_ema"].attributes["cfg"].at("sampling")
    sampling.content["type"].content = "uniform"
    with pytest.raises(ValueError, match="has no 'max_dist_between_frames', or a value"):
        official.configured(load(official.CONFIG), found)
    sampling.content["max_dist_between_frames"] = sampling.content["max_dist"]
    sampling.content["fps"].content = 30
    clip = official.configured(load(official.CONFIG), found).data.clip
    assert (clip.times, clip.max_dist, clip.dists, clip.rate) == ("even", 16, None, 30.0)


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        ("G_ema", "use_noise", True, r"noise to single pixels \(use_noise\)"),
        ("G_ema", "motion.gen_strategy", "other", "has no 'other', or a value"),
        ("D", "num_frames_div_factor", ..., "a ellipsis in a configuration"),
    ],
)
def test_what_configs_cannot_say_is_an_error(found, options, name, path, value, message):
    options(name, path).content = value
    with pytest.raises(ValueError, match=message):
        official.configured(load(official.CONFIG), found)


def test_networks_of_two_kinds_are_an_error(found, options):
    d = found.modules["D"]
    d.attributes["cfg"].content["skip_small_t_freqs"] = options("D", "concat_res")
    with pytest.raises(ValueError, match="leaves out short waves"):
        official.configured(load(official.CONFIG), found)
    d.part("mapping").attributes["num_layers"] = 3
    with pytest.raises(ValueError, match="mapping network of another depth than its G"):
        official.configured(load(official.CONFIG), found)
    d.attributes["cfg"] = None
    d.part("mapping").attributes["num_layers"] = 2
    with pytest.raises(ValueError, match="its Discriminator has no configuration with sampling"):
        official.configured(load(official.CONFIG), found)
