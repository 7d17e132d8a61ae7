"""The contract of a GAN family: four small things, and nothing else in ganjax knows a family.

A family is a package with ``networks.py``, ``phases.py`` and ``official.py`` whose ``__init__``
has ``build(config) -> Family``; a config names it by ``config.family = that_package.__name__``.
What ``official.py`` has: :class:`Official`.
Where a config leaves fields None, ``RULES`` of that ``__init__`` say what they become.
"""

import dataclasses
import functools
import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np
import optax
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from ganjax.adversarial.phases import Adjust, Phase, init_state, keep_extras
from ganjax.adversarial.state import Ema, TrainState
from ganjax.defaults import FieldRule, follow
from ganjax.interop.report import Report
from ganjax.interop.weights import Weights
from ganjax.layers.folding import LANES
from ganjax.layers.initializers import init_on_host
from ganjax.parallel.rules import Rule
from ganjax.sampling.sheets import Sheet, Video

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a network is called with, as (trees of) shapes: enough to create its parameters."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Request:
    """What somebody asks of a sampler; a family reads what it understands.

    Attributes:
      classes: class indices, shown in this order; empty for the family's choice.
      truncation: threshold for resampling latents (BigGAN), or distance from the mean w that is
        kept (StyleGAN); ``None`` for none.
      names: names of all classes, for titles; may be empty.
      rows: rows of a sheet.
      frames: of a video.
      anchors: latents that a video's path passes through.
      prompts: texts, shown in this order, of a family that draws what texts say; empty for the
        family's choice.

    Of families of videos, whose unit of time is a frame of their data:

      times: of the frames of a clip, from the start of its video; empty for the family's choice.
      start: of a video's first frame, from the start of what it shows.
      step: from one frame of a video to the next.
    """

    classes: tuple[int, ...] = ()
    truncation: float | None = None
    names: tuple[str, ...] = ()
    rows: int = 8
    frames: int = 240
    anchors: int = 4
    prompts: tuple[str, ...] = ()
    times: tuple[int | float, ...] = ()
    start: float = 0.0
    step: float = 1.0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(
                f"A sheet of {self.rows} rows; set --rows (config.log.grid_rows) to 1 or more."
            )
        if self.frames < 1 or self.anchors < 2:
            raise ValueError(
                f"A video of {self.frames} frames through {self.anchors} anchors; at least 1 frame "
                "and 2 anchors are wanted. Set --seconds, --fps and --anchors."
            )
        if not (0 <= self.start < math.inf and 0 < self.step < math.inf):
            raise ValueError(
                f"A video from frame {self.start:g} on in steps of {self.step:g} frames; numbers "
                "from 0 on, and steps above 0, are wanted. Set --start and --fps."
            )
        if self.truncation is not None and not math.isfinite(self.truncation):
            raise ValueError(f"truncation={self.truncation:g}; set --truncation to a number.")
        if not all(prompt.strip() for prompt in self.prompts):
            raise ValueError(f"An empty prompt among {list(self.prompts)}; give each some words.")

    def moments(self, numbers: Int[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
        """The times of a video's frames of these numbers, of a family of videos."""
        return (self.start + numbers * self.step).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A network that never learns: an argument of steps and samplers, in no checkpoint.

    Attributes:
      shapes: ``shapes()``: of its variables; nothing is loaded for it.
      load: ``load()``: the variables themselves.
    """

    shapes: Callable[[], Any]
    load: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Growth:
    """How networks grow: the run goes through stages, each of which plays phases of its own.

    The full tree of parameters is there from the start. The number of the stage and the items at
    which it began are ``extras``: "stage" and "stage_began".

    Attributes:
      resolutions: of each stage, the pixels of the pictures that it learns.
      most_images: after so many a stage ends in any case; 0: never.
      every_images: between two measurements of the samples' distance, which ends a stage when it
        is no larger than that of two disjoint sets of real pictures; 0: none are made.
      margin: times that distance.
      pictures: of each of those sets, and of samples.
      network, feature: of `pretrained.catalog`, whose features are compared; or "pixels" both:
        the pictures as they are, where they are few pixels.
    """

    resolutions: tuple[int, ...]
    most_images: int
    every_images: int
    margin: float
    pictures: int
    network: str
    feature: str

    def __post_init__(self) -> None:
        if self.every_images and (self.pictures < 2 or not self.margin > 0):
            raise ValueError(
                f"A distance of {self.pictures} pictures with margin {self.margin:g}; set"
                " config.grow.pictures to 2 or more, config.grow.margin to more than 0."
            )
        if len(self.resolutions) > 1 and not (self.every_images or self.most_images):
            raise ValueError(
                "No stage but the first would ever come: set config.grow.every_images or "
                "config.grow.most_images."
            )

    def extras(self) -> dict[str, Any]:
        """Scalars of the game, before the first step."""
        return {"stage": np.zeros((), np.int32), "stage_began": np.zeros((), np.uint32)}


Probe = Callable[..., Mapping[str, Any]]  # (variables, key, indices, labels, **options) -> pairs
Sample = Callable[[Any], Any]  # draws -> images [n, h, w, c] in [-1, 1]
Bind = Callable[[float | None], Sample]  # truncation -> the sampler that is ready for it


@dataclasses.dataclass(frozen=True)
class Family:
    """A GAN, ready to be trained, planned and sampled.

    Attributes:
      networks: the modules in play, by player.
      inputs: what each module is called with.
      phases: who plays, in order.
      optimizers: one for each player.
      ema: the rule of the averaged player, which is the one that samples.
      item: one item of the real stream, ``{"image": ShapeDtypeStruct((h, w, c), uint8), ...}``.
      draws: ``draws(key, indices, request) -> draws``: the random numbers and conditions of the
        samples ``indices`` (Int[n]). Sample i is a pure function of ``(key, i, request)``. Those of
        videos have their frames' ``"times"`` Float[n, t]; with others in their place the same
        videos are seen at other times.
      sample: ``sample(variables, draws) -> Float[n, h, w, c]`` in [-1, 1], pure, to be jitted; of
        videos Float[n, t, h, w, c].
      sheets: the family's pictures, by name: ``sheet(bind, key, request) -> Sheet``, where
        ``bind(truncation)`` is ``sample`` with variables that are ready for it. Training shows
        ``grid``.
      videos: likewise those that move: ``video(bind, key, request) -> Video``. A family of videos
        has ``clips``.
      probes: what metrics of pairs look at, by name: ``probe(variables, key, indices, labels,
        **options) -> {"one", "other"}``, images [n, h, w, c], about [-1, 1] and not clipped; with a
        ``"mask"`` [n, h, w, 1] of 0 and 1 where not all pixels can be compared. Pure, to be jitted,
        and in float32 whatever the family computes in. Pair i is a pure function of
        ``(key, indices[i], labels[i])``. Known to `metrics.protocols` are ``path`` (options
        ``space`` "w" or "z", ``sampling`` "end" or "full", ``epsilon``), ``translation`` (``reach``
        in widths, ``whole`` pixels or not) and ``rotation`` (``reach`` in half turns).
      ready: ``ready(variables, key, request) -> variables``: once before sampling; BigGAN gathers
        standing statistics there.
      rules: where parameters live on the mesh; the default replicates.
      extras: scalars of the game before the first step, by name.
      frozen: networks that never learn, by name. A phase meets their variables in `Game.frozen`, a
        sampler in its variables, as "frozen".
      growth: of networks that grow; ``None``: there is one stage. A sampler meets its number in
        its variables, as "stage".
      adjust: ``adjust(extras, step) -> extras`` after a step's phases; ``step`` counts it. ADA's p
        moves there, which no single phase could: it looks at several.
    """

    networks: Mapping[str, nn.Module]
    inputs: Mapping[str, Inputs]
    phases: tuple[Phase, ...]
    optimizers: Mapping[str, optax.GradientTransformation]
    ema: Ema
    item: Mapping[str, jax.ShapeDtypeStruct]
    draws: Callable[[Any, Any, Request], Any]
    sample: Callable[[Any, Any], Any]
    sheets: Mapping[str, Callable[[Bind, Any, Request], Sheet]]
    videos: Mapping[str, Callable[[Bind, Any, Request], Video]] = dataclasses.field(
        default_factory=dict
    )
    probes: Mapping[str, Probe] = dataclasses.field(default_factory=dict)
    ready: Callable[[Any, Any, Request], Any] = lambda variables, key, request: variables
    rules: tuple[Rule, ...] = ()
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    adjust: Adjust = keep_extras
    frozen: Mapping[str, Frozen] = dataclasses.field(default_factory=dict)
    growth: Growth | None = None

    def init(self, key: Any, given: Mapping[str, Any] | None = None) -> TrainState:
        """The state before the first step, as NumPy arrays: nothing is compiled for it.

        Args:
          given: variables of players that have learned already; all stages are then done.
        """
        variables = dict(given or {})
        for index, (player, module) in enumerate(self.networks.items()):
            if player not in variables:
                inputs = self.inputs[player]
                variables[player] = init_on_host(
                    module, jax.random.fold_in(key, index), *inputs.args, **inputs.kwargs
                )
        state = self._state(variables)
        if self.growth and given:
            last = np.int32(len(self.growth.resolutions) - 1)
            state = state.replace(extras={**state.extras, "stage": last})
        return state

    def load_frozen(self) -> dict[str, Any]:
        """Variables of the networks that never learn."""
        return {name: frozen.load() for name, frozen in self.frozen.items()}

    def sampled(
        self, variables: Mapping[str, Any], extras: Mapping[str, Any], frozen: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A player's variables as `sample` and `ready` take them.

        Args:
          extras: of the state that they are of.
          frozen: as of `load_frozen`.
        """
        more: dict[str, Any] = {"frozen": frozen} if self.frozen else {}
        if self.growth:
            more["stage"] = extras["stage"]
        return {**variables, **more}

    def abstract_variables(self) -> dict[str, Any]:
        """Shapes and dtypes of each player's variables, without memory."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        return {
            player: jax.eval_shape(
                functools.partial(module.init, **self.inputs[player].kwargs),
                key,
                *self.inputs[player].args,
            )
            for player, module in self.networks.items()
        }

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the state, without memory."""
        return jax.eval_shape(self._state, self.abstract_variables())

    def parameter_count(self, player: str) -> int:
        """Trainable parameters of one player."""
        leaves = jax.tree.leaves(self.abstract_variables()[player]["params"])
        return sum(int(np.prod(leaf.shape)) for leaf in leaves)

    def _state(self, variables: Any) -> TrainState:
        extras = {**self.extras, **(self.growth.extras() if self.growth else {})}
        return init_state(variables, self.phases, self.optimizers, self.ema, extras)


@runtime_checkable
class Official(Protocol):
    """What a family's ``official.py`` has: the way from the published weights, and back to them.

    Names and layouts are those of the official code's state dicts; shapes are of our modules. Where
    the published files tell their architecture there is a ``CONFIG`` besides: the config file that
    a run of theirs has its other values from. Where not all players were published there is
    ``PLAYERS``: those that were.
    """

    def from_official(
        self, state: Mapping[str, np.ndarray], module: nn.Module, *, strict: bool = True
    ) -> tuple[dict[str, Any], Report]:
        """Variables (NumPy arrays) of a network, and what became of the entries.

        Raises:
          ValueError: entries that do not fit, or that are missing unless ``strict=False``.
        """

    def to_official(self, variables: Mapping[str, Any], module: nn.Module) -> dict[str, np.ndarray]:
        """The inverse; what is left out of ``variables`` stays out."""

    def constants(self, module: nn.Module) -> dict[str, np.ndarray]:
        """Entries of an official state dict that are fields of our module, such as filters."""

    def configured(self, config: ConfigDict, weights: Weights) -> ConfigDict:
        """The config with what official weights tell of their architecture, and what training
        further from them wants."""


def official_of(config: Any) -> Official:
    """``official.py`` of the family that ``config.family`` names.

    Raises:
      ValueError: it has none, or not all of it.
    """
    _module(config)
    name = f"{config.family}.official"
    module: Any = importlib.import_module(name) if importlib.util.find_spec(name) else None
    if not isinstance(module, Official):
        raise ValueError(
            f"{name} is not whole, and official weights need it: from_official, to_official, "
            "constants and configured, as ganjax.family.Official says."
        )
    return module


def build(config: Any, platform: str) -> Family:
    """The family that ``config.family`` names, computing as fits the devices.

    Args:
      config: a config file's.
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; decides ``config.precision == "auto"`` and
        ``config.lanes == -1``.

    Raises:
      ValueError: the module cannot be imported or has no ``build``; an unknown precision; a field
        that is not there.
    """
    module = _module(config)
    if config.precision not in PRECISIONS:
        raise ValueError(f"config.precision={config.precision!r}; set one of {PRECISIONS}.")
    if config.data.get("classes") == 0:
        raise ValueError(
            "config.data.classes=0 takes what the data has, at which only training looks. Set the "
            "number of classes."
        )
    config = config.copy_and_resolve_references().unlock()
    if config.precision == "auto":
        config.precision = "float32" if platform == "cpu" else "bfloat16"
    if config.get("lanes", -1) == -1:  # runs of earlier versions have none
        config.lanes = LANES if platform == "tpu" else 0
    unknown = [rule.field for rule in _rules(module) if _value(config, rule.field) is None]
    if unknown:
        raise ValueError(
            f"config.{unknown[0]}=None is to be set by a rule, from the number of devices, which "
            "only training and planning know. Set a number."
        )
    try:
        return module.build(config)
    except AttributeError as error:  # a ConfigDict's wraps the KeyError
        if not (error.args and isinstance(error.args[0], KeyError)):
            raise
        raise ValueError(
            f"The config has no field {error.args[0].args[0]}, which {config.family} reads: it is "
            "of another version of ganjax. Add the field to the run's config.json, or to the "
            "config file, as configs/ has it."
        ) from error


def settle(
    config: ConfigDict, devices: int, begun: ConfigDict | None = None
) -> tuple[ConfigDict, list[str]]:
    """Sets what is None by the rules of ``config.family``: see :func:`ganjax.defaults.follow`."""
    return follow(_rules(_module(config)), config, devices, begun)


def _rules(module: ModuleType) -> tuple[FieldRule, ...]:
    return getattr(module, "RULES", ())


def _value(config: Any, field: str) -> Any:
    group, _, name = field.rpartition(".")
    return config[group][name]


def _module(config: Any) -> ModuleType:
    try:
        module = importlib.import_module(config.family)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"config.family={config.family!r} cannot be imported ({error}). Set it to a family's "
            "module name, as configs/biggan.py does: config.family = biggan.__name__."
        ) from error
    if not hasattr(module, "build"):
        raise ValueError(f"config.family={config.family!r} has no build(config) -> Family.")
    return module
