"""Values of a config from resolution and number of devices: "auto" of stylegan2-ada-pytorch.

Each rule is that of ``cfg=auto`` in the official train.py; a config's field that is None asks for
it. Configs of the official list hold their own numbers instead.
"""

from typing import Any

from ganjax.defaults import FieldRule


def batch(config: Any, devices: int) -> int:
    """Up to 32 images a device while memory lasts, and 64 in all."""
    return max(min(devices * min(4096 // resolution(config), 32), 64), devices)


def group_size(config: Any, devices: int) -> int:
    """Groups of 4, which other settings are tuned for, where a device has as many images."""
    return max(min(config.train.batch // devices, 4), 1)


def channel_base(config: Any, devices: int) -> int:
    """Half of the paper's channels up to 256 pixels."""
    return 32768 if resolution(config) >= 512 else 16384


def learning_rate(config: Any, devices: int) -> float:
    """A little less for the largest images."""
    return 2e-3 if resolution(config) >= 1024 else 2.5e-3


def r1_gamma(config: Any, devices: int) -> float:
    """The gradient of the logits is by pixel, so its weight grows with their number."""
    return 2e-4 * resolution(config) ** 2 / config.train.batch


def half_life_images(config: Any, devices: int) -> float:
    """10,000 images at batch 32."""
    return config.train.batch * 10_000 / 32


def resolution(config: Any) -> int:
    """The longer side of the images, in pixels."""
    size = config.data.resolution
    return size if isinstance(size, int) else max(size)


_AUTO = '("auto" of stylegan2-ada-pytorch, train.py)'
_RATE = f"0.0025, from 1024 pixels on 0.002 {_AUTO}"
_CHANNELS = f"32768 from 512 pixels on, else half {_AUTO}"

RULES = (
    FieldRule(
        "train.batch",
        batch,
        f"as many as 4096 / resolution or 32 a device, at most 64, at least 1 a device {_AUTO}",
    ),
    FieldRule("model.group_size", group_size, f"a device's batch, at most 4 {_AUTO}"),
    FieldRule("model.mapping_layers", lambda config, devices: 2, f"always 2 {_AUTO}"),
    FieldRule("model.g_channel_base", channel_base, _CHANNELS),
    FieldRule("model.d_channel_base", channel_base, _CHANNELS),
    FieldRule("optimizer.g_lr", learning_rate, _RATE),
    FieldRule("optimizer.d_lr", learning_rate, _RATE),
    FieldRule("loss.r1_gamma", r1_gamma, f"0.0002 * resolution^2 / batch {_AUTO}"),
    FieldRule("ema.half_life_images", half_life_images, f"10,000 * batch / 32 {_AUTO}"),
)
