"""What the configs of all families have in common: sections, fields, and how often things happen.

A file in ``configs/`` calls :func:`config` with what is its family's own, and changes the values
of these fields where its presets need others.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict


def config(family: str, **sections: Mapping[str, Any]) -> ConfigDict:
    """A config with the shared sections, and a family's own: ``model``, ``train``, ...

    Args:
      family: the module's name, as ``biggan.__name__``.
      sections: by name; fields of a shared section are added to it or replace its.
    """
    shared = ConfigDict(
        dict(
            family=family,
            seed=0,
            precision="auto",  # compute dtype: bfloat16 on accelerators, float32 on CPU
            lanes=-1,  # channels that a device computes at once; 0: as they come, -1: by the device
            data=dict(
                source="digits",  # see docs/data.md
                path="",  # folder, zip or tar file, folder of tars, records or TFDS data sets
                name="",  # TFDS data set
                split="train",
                resolution=32,  # pixels; one number, or (height, width)
                channels=3,
                classes=10,  # 0: as many as the data has; data without classes has 1
                flip=False,  # mirror half of the images
                max_broken=10,  # unreadable images to skip before giving up
                threads=None,  # that read: one for built-in data, else one a core up to 16
                prefetch=8,  # batches
            ),
            mesh=dict(data=-1, expert=1, fsdp=1),  # -1: the remaining devices
            log=dict(
                scalars_every_images=100_000,
                grid_every_images=200_000,
                grid_rows=8,
            ),
            checkpoint=dict(every_images=200_000, keep=3),
            watch=dict(
                every_images=200_000,
                min_diversity=0.05,  # of the real images'
                max_sigma=1e4,
                max_sigma_growth=10.0,  # over what is usual for the layer
                max_logit_gap=50.0,
                min_logit_gap=0.01,  # of the largest so far
                patience=3,  # checks in a row
            ),
            evaluate=dict(
                every_images=0,  # measures and saves; 0: never
                metrics=(),  # the first one chooses the best checkpoint; see --help
                samples=0,  # of the metrics of built-in data; 0: as they state it
            ),
        )
    )
    shared.update(sections)
    return shared


def augment() -> dict[str, Any]:
    """The section ``augment`` of families that may augment what D sees, reals and fakes."""
    return dict(
        mode="none",  # ada: p follows the overfitting; fixed: p stays; none
        pipe="bgc",  # blitting, geometry, colour; bgcfnc also filter, noise, cutout
        p=0.0,  # probability of a transform; of ada at the start
        target=0.6,  # ada: of the mean sign of D's logits of reals
        every=4,  # ada: steps between adjustments of p
        ramp_images=500_000,  # ada: p moves by at most 1 in so many
    )


def for_minutes(config: ConfigDict) -> None:
    """How often a run that takes minutes on a CPU reports, draws, saves and measures."""
    config.log.update(scalars_every_images=640, grid_every_images=3_200)
    config.checkpoint.every_images = 16_000
    config.watch.every_images = 3_200
    config.evaluate.every_images = 16_000


def prepared(config: ConfigDict, name: str, resolution: int, classes: int = 1) -> None:
    """Data that ``python -m ganjax.data.prepare --out=data/NAME`` has written."""
    config.data.update(
        source="records", path=f"data/{name}", resolution=resolution, classes=classes
    )


def with_mtm(preset: Callable[[], ConfigDict]) -> ConfigDict:
    """A preset with the modulated transformation module at low resolutions, and nothing else."""
    config = preset()
    config.model.mtm = ("low",)
    return config


@dataclasses.dataclass(frozen=True)
class FieldRule:
    """How a field of a config that is None gets its value.

    Attributes:
      field: as ``train.batch``.
      value: ``value(config, devices)``, with the fields of the rules before this one set.
      says: the rule in words, and whose it is.
    """

    field: str
    value: Callable[[ConfigDict, int], Any]
    says: str


def follow(
    rules: Iterable[FieldRule],
    config: ConfigDict,
    devices: int,
    begun: ConfigDict | None = None,
) -> tuple[ConfigDict, list[str]]:
    """A locked config whose fields that were None have the values of the rules.

    Args:
      devices: over all hosts.
      begun: the config that a run began with: its values stay, on any number of devices.

    Returns:
      The config, and a line for each field that a rule decided.
    """
    config = config.copy_and_resolve_references().unlock()
    lines = []
    for rule in rules:
        group, _, name = rule.field.rpartition(".")
        if config[group][name] is None:
            begun_with = begun[group].get(name) if begun and group in begun else None
            value = rule.value(config, devices) if begun_with is None else begun_with
            config[group][name] = value
            why = rule.says if begun_with is None else "as the run began"
            lines.append(f"{rule.field} = {value:g}: {why}")
    return config.lock(), lines
