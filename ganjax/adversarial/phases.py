"""Phases: who plays, on which loss, how often; and the one train step that plays them.

A family states an ordered tuple of :class:`Phase`. The host asks :func:`due` which of them a step
plays and hands their names to the step as a static argument, so each combination is a program of
its own without dead branches; :func:`programs` lists the combinations with their share of steps.
"""

import dataclasses
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ganjax.adversarial.state import Ema, Player, TrainState, merge, path_of, split_by_touch


@dataclasses.dataclass(frozen=True)
class Game:
    """What a phase sees while it plays one microbatch.

    Attributes:
      players: variables of every network, ``{"g": {"params": ..., "batch_stats": ...}}``.
      extras: scalars of the game.
      batch: this microbatch of the stream that the phase names (``None`` if it names none).
      draws: what the phase's ``draw`` returned, or recorded draws in its place.
      frozen: networks that never train (CLIP, ...), an argument of the step.
      passed: what earlier phases of this step passed on.
      step: steps taken before this one.
      items: samples of the real stream consumed before this step.
      size: samples in this microbatch (static).
    """

    players: Mapping[str, Any]
    extras: Mapping[str, Any]
    batch: Any
    draws: Any
    frozen: Any
    passed: Mapping[str, Any]
    step: Any
    items: Any
    size: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a loss returns beside its value.

    Attributes:
      collections: side state to keep, ``{player: {collection: tree}}``; the phase declares each
        as ``writes``.
      metrics: scalars for the log; means over repeats and microbatches are logged.
      extras: scalars of the game to keep, declared as ``writes=("extras/name",)``.
      passed: values for later phases of the same step (the last repeat's and microbatch's).
    """

    collections: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    passed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One player's turn.

    Attributes:
      name: for logs, programs and random keys: ``"d/main"``.
      player: whose parameters it moves.
      loss: ``loss(params of the player, game) -> (scalar, Outcome)``.
      size: samples in a microbatch, over all devices.
      draw: ``draw(key, game) -> draws``: every random number of the phase.
      batch: the stream whose data it sees, or ``None``.
      every: lazy regularisation: played every so many steps, its loss multiplied by as much.
      times: optimizer steps it takes, each on fresh data.
      microbatches: gradients accumulated into one optimizer step.
      reduce: how microbatches' gradients become one: BigGAN's mean or StyleGAN's sum.
      touches: regular expression of the parameter paths that it moves; the others keep value,
        moments and count.
      writes: side state that it may change: ``"g/batch_stats"``, ``"extras/path_mean"``.
      stage: of the run, by number, that plays it: of networks that grow; ``None``: every stage.
    """

    name: str
    player: str
    loss: Callable[[Any, Game], tuple[Any, Outcome]]
    size: int
    draw: Callable[[Any, Game], Any] | None = None
    batch: str | None = None
    every: int = 1
    times: int = 1
    microbatches: int = 1
    reduce: Literal["mean", "sum"] = "mean"
    touches: str = ".*"
    writes: tuple[str, ...] = ()
    stage: int | None = None

    def plays_in(self, stage: int) -> bool:
        """Whether a stage plays it."""
        return self.stage in (None, stage)


Step = Callable[..., tuple[TrainState, dict[str, Any]]]
Adjust = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]


def keep_extras(extras: Mapping[str, Any], step: Any) -> Mapping[str, Any]:
    """The scalars of the game as the phases left them."""
    del step
    return extras


def due(phases: Sequence[Phase], step: int, stage: int = 0) -> tuple[str, ...]:
    """Names of the phases that step number ``step`` (from 0) plays in a stage, in order."""
    return tuple(p.name for p in phases if step % p.every == 0 and p.plays_in(stage))


def programs(phases: Sequence[Phase], stage: int = 0) -> dict[tuple[str, ...], Fraction]:
    """The distinct sets of a stage's due phases and the share of its steps, commonest first."""
    period = math.lcm(*(phase.every for phase in phases))
    counts: dict[tuple[str, ...], int] = {}
    for step in range(period):
        names = due(phases, step, stage)
        counts[names] = counts.get(names, 0) + 1
    ordered = sorted(counts.items(), key=lambda entry: -entry[1])
    return {names: Fraction(count, period) for names, count in ordered}


def streams(phases: Sequence[Phase]) -> dict[str, tuple[int, int, int]]:
    """Leading dimensions ``(times, microbatches, n)`` of each stream's batch for one step.

    A stream has the repeats of the phase that asks for most; a phase with fewer sees the first.

    Raises:
      ValueError: phases that share a stream disagree on the size or number of microbatches.
    """
    shapes: dict[str, tuple[int, int, int]] = {}
    for phase in phases:
        if phase.batch is None:
            continue
        shape = (phase.times, phase.microbatches, phase.size)
        before = shapes.get(phase.batch, shape)
        if before[1:] != shape[1:]:
            raise ValueError(
                f"Phase {phase.name!r} wants {shape[1]} microbatches of {shape[2]} from stream "
                f"{phase.batch!r}, an earlier phase {before[1]} of {before[2]}. Give them one "
                "shape, or name two streams."
            )
        shapes[phase.batch] = (max(before[0], shape[0]), *shape[1:])
    return shapes


def items_per_step(phases: Sequence[Phase]) -> int:
    """Samples of the real stream that a step consumes."""
    return math.prod(streams(phases)["real"])


def phase_key(key: Any, step: Any, phase: Phase, repeat: Any, microbatch: Any) -> Any:
    """The random key of one microbatch: a pure function of seed, step, phase, repeat, microbatch.

    The phase enters by its name, so adding a phase leaves the others' numbers as they are.
    """
    for number in (step, zlib.crc32(phase.name.encode()) & 0x7FFFFFFF, repeat, microbatch):
        key = jax.random.fold_in(key, number)
    return key


def init_state(
    variables: Mapping[str, Mapping[str, Any]],
    phases: Sequence[Phase],
    optimizers: Mapping[str, optax.GradientTransformation],
    ema: Ema,
    extras: Mapping[str, Any] | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      variables: ``{player: {"params": ..., collection: ...}}``.
      phases: the family's; they tell which parameters share an optimizer state.
      optimizers: one for each player.
      ema: the rule of the averaged player; the average starts as a copy.
      extras: scalars of the game.
    """
    players = {}
    for name, tree in variables.items():
        groups = split_by_touch(tree["params"], _patterns(phases, name))
        players[name] = Player(
            params=tree["params"],
            collections={key: value for key, value in tree.items() if key != "params"},
            optimizer={group: optimizers[name].init(sub) for group, sub in groups.items()},
        )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        items=jnp.zeros((), jnp.uint32),
        players=players,
        # A copy: a donated buffer may not appear twice.
        ema=jax.tree.map(jnp.copy, dict(variables[ema.player])),
        extras=dict(extras or {}),
    )


def make_step(
    phases: Sequence[Phase],
    optimizers: Mapping[str, optax.GradientTransformation],
    ema: Ema,
    *,
    unroll: bool,
    constrain: Callable[[Any], Any] = lambda draws: draws,
    adjust: Adjust = keep_extras,
) -> Step:
    """The train step of any family.

    Args:
      phases: played in this order; each sees what the earlier ones changed.
      optimizers: one for each player.
      ema: the rule of the averaged player, updated last.
      unroll: write repeats and microbatches out instead of ``lax.scan``. XLA's CPU compiler runs
        the gradient of a convolution inside control flow up to 100 times slower, so it is meant
        for CPUs; a scan keeps the program small elsewhere.
      constrain: lays out draws, and gradients' operands, over devices: applied to every phase's
        draws, whose leading dimension is the microbatch.
      adjust: moves scalars of the game when the phases are done.

    Returns:
      ``step(state, batches, key, frozen=None, recorded=None, *, due) -> (state, metrics)``, to be
      jitted with ``due`` static and ``state`` donated. ``batches`` maps a stream's name to a tree
      with leading dimensions of :func:`streams`; ``recorded`` maps a phase's name to draws with
      leading ``[times, microbatches]`` that replace its own.
    """
    by_name = {phase.name: phase for phase in phases}
    consumed = items_per_step(phases)

    def step(state, batches, key, frozen=None, recorded=None, *, due):
        metrics: dict[str, Any] = {}
        passed: dict[str, Any] = {}
        before = state
        for name in due:
            phase = by_name[name]
            state, values, passed_now = _play(
                phase,
                phases,
                optimizers[phase.player],
                state,
                batches.get(phase.batch) if phase.batch else None,
                key,
                frozen,
                passed,
                (recorded or {}).get(name),
                unroll,
                constrain,
            )
            passed |= passed_now
            metrics |= {f"{name}/{metric}": value for metric, value in values.items()}
        average = ema.update(state.ema, state.players[ema.player], before.step + 1, before.items)
        state = state.replace(
            step=before.step + 1,
            items=before.items + jnp.uint32(consumed),
            ema=average,
            extras=dict(adjust(state.extras, before.step + 1)),
        )
        return state, metrics

    return step


def phase_gradient(
    phase: Phase, state: TrainState, batch: Any, draws: Any, frozen: Any = None, passed: Any = None
) -> tuple[Any, Any, Outcome]:
    """Gradient of one microbatch with respect to all parameters of the phase's player.

    Returns:
      ``(value, gradient, outcome)``: the loss without the lazy gain, the gradient with it.

    Raises:
      ValueError: the loss changed side state that the phase does not declare in ``writes``.
    """
    game = Game(
        players={name: player.variables for name, player in state.players.items()},
        extras=state.extras,
        batch=batch,
        draws=draws,
        frozen=frozen,
        passed=passed or {},
        step=state.step,
        items=state.items,
        size=phase.size,
    )

    def objective(params):
        value, outcome = phase.loss(params, game)
        # A dataclass is no pytree, so its fields cross the gradient as a dict.
        return value * phase.every, (value, vars(outcome))

    gradient, (value, aux) = jax.grad(objective, has_aux=True)(state.players[phase.player].params)
    outcome = Outcome(**aux)
    _check_writes(phase, outcome)
    return value, gradient, outcome


def _play(
    phase, phases, optimizer, state, batch, key, frozen, passed, recorded, unroll, constrain
) -> tuple[TrainState, dict[str, Any], dict[str, Any]]:
    """All repeats of one phase."""
    patterns = _patterns(phases, phase.player)
    start = state.step
    if batch is not None:
        batch = jax.tree.map(lambda leaf: leaf[: phase.times], batch)

    def microbatch(carry, xs, repeat):
        state, total = carry
        index, data, given = xs
        draws = given
        if draws is None and phase.draw is not None:
            blank = Game({}, state.extras, data, None, None, {}, start, state.items, phase.size)
            draws = phase.draw(phase_key(key, start, phase, repeat, index), blank)
        draws = constrain(draws)
        value, gradient, outcome = phase_gradient(phase, state, data, draws, frozen, passed)
        state = _keep(state, outcome)
        if total is not None:
            gradient = jax.tree.map(jnp.add, total, gradient)
        return (state, gradient), ({"loss": value, **outcome.metrics}, outcome.passed)

    def repeat(state, xs):
        index, data, given = xs
        zeros = None
        if not unroll and phase.microbatches > 1:
            zeros = jax.tree.map(jnp.zeros_like, state.players[phase.player].params)
        (state, gradient), outputs = _loop(
            lambda carry, xs: microbatch(carry, xs, index),
            (state, zeros),
            (jnp.arange(phase.microbatches), data, given),
            phase.microbatches,
            unroll,
        )
        if phase.reduce == "mean" and phase.microbatches > 1:
            gradient = jax.tree.map(lambda leaf: leaf / phase.microbatches, gradient)
        return _descend(phase, patterns, optimizer, state, gradient), outputs

    state, (metrics, handed) = _loop(
        repeat, state, (jnp.arange(phase.times), batch, recorded), phase.times, unroll
    )
    return (
        state,
        jax.tree.map(jnp.mean, metrics),
        jax.tree.map(lambda leaf: leaf[-1, -1], dict(handed)),
    )


def _descend(phase, patterns, optimizer, state, gradient) -> TrainState:
    """One optimizer step on the parameters that the phase touches."""
    player = state.players[phase.player]
    params = split_by_touch(player.params, patterns)
    gradients = split_by_touch(gradient, patterns)
    states = dict(player.optimizer)
    for group, weights in params.items():
        # Every path of a group matches the same phases, so one of them speaks for all.
        first = path_of(jax.tree_util.tree_leaves_with_path(weights)[0][0])
        if not re.search(phase.touches, first):
            continue
        updates, states[group] = optimizer.update(gradients[group], states[group], weights)
        params[group] = optax.apply_updates(weights, updates)
    player = player.replace(params=merge(list(params.values())), optimizer=states)
    return state.replace(players={**state.players, phase.player: player})


def _keep(state: TrainState, outcome: Outcome) -> TrainState:
    """The state with the side state that a loss handed back."""
    players = dict(state.players)
    for name, changed in outcome.collections.items():
        player = players[name]
        players[name] = player.replace(collections={**player.collections, **changed})
    return state.replace(players=players, extras={**state.extras, **outcome.extras})


def _check_writes(phase: Phase, outcome: Outcome) -> None:
    wrote = {
        f"{player}/{name}" for player, kept in outcome.collections.items() for name in kept
    } | {f"extras/{name}" for name in outcome.extras}
    undeclared = sorted(wrote - set(phase.writes))
    if undeclared:
        raise ValueError(
            f"Phase {phase.name!r} changed {undeclared} but declares writes={phase.writes}. "
            "Declare them, or drop them from its Outcome."
        )


def _patterns(phases: Sequence[Phase], player: str) -> dict[str, str]:
    return {phase.name: phase.touches for phase in phases if phase.player == player}


def _loop(body, carry, xs, length: int, unroll: bool):
    """``lax.scan``, or the same written out; outputs are stacked along a new first axis."""
    if not unroll and length > 1:
        return jax.lax.scan(body, carry, xs, length=length)
    outputs = []
    for index in range(length):
        carry, output = body(carry, jax.tree.map(lambda leaf, i=index: leaf[i], xs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)
