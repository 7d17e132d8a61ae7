"""What NVIDIA's snapshots tell of their networks, as fields of a config.

Values are taken from the networks' attributes where they have them, for the defaults of arguments
differ between the releases.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ganjax.interop.nvidia_pickle import Module
from ganjax.interop.weights import Weights

CHANNEL_BASE, CHANNEL_MAX = 32768, 512  # of both releases, where an argument does not say
LEARNED = {"activation": "lrelu", "bias_gain": 0.01}  # a layer of a mapping network
TWO_MAXIMA = (
    "the snapshot's D has another channel_max than its G, and configs have one for both; build the"
    " modules in Python and fill them by from_official"
)


def resumed(config: ConfigDict, weights: Weights) -> ConfigDict:
    """An unlocked copy that goes on from weights, with what a snapshot tells of data and inputs.

    The average is kept from the first step on and ADA reacts faster, as where the official code
    resumes.

    Raises:
        ValueError: the snapshot has options that the config has not.
    """
    config = config.copy_and_resolve_references().unlock()
    config.ema.ramp_up = 0.0
    if not weights.modules:
        return config
    g = weights.generator
    expressible(g, {"mapping.fc0": LEARNED})
    path = str(weights.data.get("path", ""))
    classes = g.attributes["c_dim"]
    config.data.update(
        source="zip" if path.endswith(".zip") else "folder",
        path=path,
        flip=bool(weights.data.get("xflip", False)),
        resolution=g.attributes["img_resolution"],
        channels=g.attributes["img_channels"],
        classes=classes or 1,
    )
    config.model.update(
        conditional=classes > 0,
        latent_dim=g.attributes["z_dim"],
        w_dim=g.attributes["w_dim"],
        mapping_layers=g.part("mapping").attributes["num_layers"],
    )
    config.augment.mode = "ada" if "augment_pipe" in weights.modules else "none"
    config.augment.ramp_images = 100_000
    return config


def generator(g: Module) -> dict[str, Any]:
    """Fields of `config.model` that are of StyleGAN2's generator.

    Raises:
        ValueError: it has options that the config has not.
    """
    layer, block = g.part("synthesis.b4.conv1"), g.part("synthesis.b4")
    expressible(g, {"synthesis.b4.conv1": {"activation": "lrelu", "use_noise": True}})
    given = arguments(g)
    return dict(
        g_channel_base=given.get("channel_base", CHANNEL_BASE),
        channel_max=given.get("channel_max", CHANNEL_MAX),
        g_architecture=block.attributes["architecture"],
        clamp=float(layer.attributes["conv_clamp"] or 0),
        narrow=sum(
            part.attributes.get("use_fp16", 0) for part in g.part("synthesis").parts.values()
        ),
    )


def discriminator(d: Module) -> dict[str, Any]:
    """Fields of `config.model` that are of the discriminator, which both releases share.

    Raises:
        ValueError: it has options that the config has not.
    """
    first = f"b{d.attributes['img_resolution']}"
    expressible(d, {f"{first}.conv0": {"activation": "lrelu"}, "b4.mbstd": {"num_channels": 1}})
    given = arguments(d)
    return dict(
        d_channel_base=given.get("channel_base", CHANNEL_BASE),
        d_channel_max=given.get("channel_max", CHANNEL_MAX),
        d_architecture=d.part(first).attributes["architecture"],
        group_size=d.part("b4.mbstd").attributes["group_size"],
    )


def arguments(network: Module) -> dict[str, Any]:
    """What a network was made with; stylegan2-ada-pytorch has the synthesis' apart."""
    given = network.attributes["_init_kwargs"]
    return {**given, **given.get("synthesis_kwargs", {})}


def expressible(network: Module, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """ValueError where attributes of a snapshot's parts are none that a config can say.

    Args:
        wanted: attributes by path of the part.
    """
    for path, attributes in wanted.items():
        for name, value in attributes.items():
            found = network.part(path).attributes.get(name, value)
            if found != value:
                raise ValueError(
                    f"the snapshot's {network.name} has {path}.{name}={found!r}, and configs of"
                    f" ganjax have {value!r} only; build the module in Python and fill it by"
                    " from_official"
                )
