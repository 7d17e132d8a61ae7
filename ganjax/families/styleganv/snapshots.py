"""What snapshots of StyleGAN-V's released code tell of their networks, as fields of a config.

Most options lie in an OmegaConf configuration that each network keeps (`interop/omegaconf.py`).
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ganjax.families.stylegan2 import snapshots as stylegan2
from ganjax.interop import omegaconf
from ganjax.interop.nvidia_pickle import Module
from ganjax.interop.weights import Weights

JOINS = {"concat_const": "constant", "concat_w": "styles", "sum_w": "added"}
TRAJECTORIES = {"conv": "conv", "autoregressive": "lstm"}
TOLD = "time_encoder.const_embed"


def configured(config: ConfigDict, weights: Weights) -> ConfigDict:
    """The config with the architecture of a snapshot, and the average kept from the first step.

    Raises:
        ValueError: the snapshot has options that the config has not.
    """
    config = stylegan2.resumed(config, weights)
    if not weights.modules:
        return config
    try:
        return _of_snapshot(config, weights)
    except KeyError as error:
        raise ValueError(
            f"the snapshot's configuration has no {error}, or a value of it that configs have not;"
            " expected one that the released code has trained with configs/model/stylegan-v.yaml"
        ) from error


def _of_snapshot(config: ConfigDict, weights: Weights) -> ConfigDict:
    g = weights.generator
    config.model.update(stylegan2.generator(g), **_motion(_options(g)))
    config.data.clip.update(_clip(_options(g)["sampling"]))
    if "D" in weights.modules:
        d = weights.modules["D"]
        if d.part("mapping").attributes["num_layers"] != config.model.mapping_layers:
            raise ValueError(
                "the snapshot's D has a mapping network of another depth than its G, and configs"
                " have one for both; build the modules in Python and fill them by from_official"
            )
        found = stylegan2.discriminator(d)
        if found.pop("d_channel_max") != config.model.channel_max:
            raise ValueError(stylegan2.TWO_MAXIMA)
        with config.ignore_type():  # the group may be the whole batch, None
            config.model.update(found, **_joined(d))
    return config


def _options(network: Module) -> dict[str, Any]:
    """The configuration of a network, as plain values."""
    options = omegaconf.plain(network.attributes.get("cfg"))
    if not isinstance(options, dict) or not isinstance(options.get("sampling"), dict):
        raise ValueError(
            f"its {network.name} has no configuration with sampling; expected a network of"
            " StyleGAN-V's released code"
        )
    return options


def _motion(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `config.model` that are of motion codes."""
    if options.get("use_noise"):
        raise ValueError(
            "the snapshot's generator adds noise to single pixels (use_noise), which configs of"
            " StyleGAN-V have not; build the module in Python and fill it by from_official"
        )
    motion, waves = options["motion"], options["time_enc"]
    found = dict(
        trajectory=TRAJECTORIES[motion["gen_strategy"]],
        motion_noise_dim=motion["z_dim"],
        motion_dim=motion["v_dim"],
        motion_distance=motion["motion_z_distance"],
        join=JOINS[waves["cond_type"]],
        encoding="waves" if motion["fourier"] else "mapped",
    )
    if found["trajectory"] == "conv":
        found["motion_taps"] = motion["kernel_size"]
    if motion["fourier"]:
        found |= dict(
            waves=waves["dim"],
            shortest_period=float(waves["min_period_len"]),
            longest_period=float(waves["max_period_len"]),
            spacing="octaves",
        )
    return found


def _clip(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `config.data.clip`: which frames the discriminator sees."""
    even = sampling["type"] == "uniform"
    most = sampling["max_dist_between_frames" if even else "max_dist"]
    dists = sampling.get("dists_between_frames" if even else "total_dists")
    rate = {"rate": float(sampling["fps"])} if sampling.get("fps") else {}
    return rate | dict(
        times="even" if even else "sparse",
        frames=sampling["num_frames_per_video"],
        max_frames=sampling["max_num_frames"],
        max_dist=most,
        dists=None if dists is None else tuple(dist for dist in dists if dist <= most),
    )


def _joined(d: Module) -> dict[str, Any]:
    """Fields of `config.model` that are of what the discriminator sees and is told."""
    options = _options(d)
    if options.get("skip_small_t_freqs"):
        raise ValueError(
            "the snapshot's discriminator leaves out short waves (skip_small_t_freqs), which"
            " configs have not; build the module in Python and fill it by from_official"
        )
    return dict(
        discriminator="released",
        join_resolution=options["concat_res"],
        join_share=options["num_frames_div_factor"],
        told_dim=d.part(TOLD).tensors["weight"].shape[1],
        projected="blank" if options["dummy_c"] else "told",
    )
