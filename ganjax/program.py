"""A family's train step over a mesh: the very program that is trained, planned and benchmarked."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from ganjax.adversarial.phases import Game, Phase, items_per_step, make_step, streams
from ganjax.adversarial.state import TrainState
from ganjax.family import Family
from ganjax.parallel.mesh import batch_sharding, check_batch, replicated
from ganjax.parallel.rules import Rule, fsdp, gathered, moved, replicate, shardings


@dataclasses.dataclass(frozen=True)
class Program:
    """The train step with everything that it takes, as shapes with their places.

    Attributes:
      step: jitted; ``step(state, batches, key, frozen, due=...)``; the state is donated.
      state: the abstract state.
      batches: the abstract batch of each stream.
      key: the abstract random key.
      frozen: abstract variables of the networks that never learn, by name.
      items: samples of the real stream that a step consumes.
    """

    step: Any
    state: TrainState
    batches: dict[str, Any]
    key: Any
    frozen: dict[str, Any]
    items: int

    def lower(self, due: tuple[str, ...]) -> Any:
        """The step that plays these phases, to be compiled."""
        return self.step.lower(self.state, self.batches, self.key, self.frozen, due=due)

    def place(self, state: TrainState) -> TrainState:
        """A state of this run's shapes, on its devices."""
        return jax.device_put(state, jax.tree.map(lambda leaf: leaf.sharding, self.state))

    def place_frozen(self, frozen: Any) -> dict[str, Any]:
        """Variables of `Family.load_frozen`, on the devices."""
        return jax.device_put(frozen, jax.tree.map(lambda leaf: leaf.sharding, self.frozen))


def assemble(family: Family, mesh: Mesh) -> Program:
    """Bind a family to a mesh.

    Raises:
      ValueError: a batch that the data-like axes of the mesh do not divide, or a parameter that
        no rule places.
    """
    for phase in family.phases:
        check_batch(phase.size, mesh, f"The microbatch of phase {phase.name!r} (from config.train)")
    state = family.abstract_state()
    # Parameters that the family places nowhere are split where the config asks for FSDP.
    rules = (*family.rules, Rule("", fsdp() if "fsdp" in mesh.shape else replicate))
    places = shardings(state, rules, mesh)
    everywhere = replicated(mesh)
    samples = batch_sharding(mesh, leading=0)

    def constrain(draws):
        def lay_out(leaf):
            if leaf.ndim and leaf.shape[0] % mesh.size == 0:
                return jax.lax.with_sharding_constraint(leaf, samples)
            return leaf

        return jax.tree.map(lay_out, draws)

    phases = tuple(_on_mesh(phase, mesh) for phase in family.phases)
    if "fsdp" in mesh.shape:
        used, kept = (
            {name: player.variables for name, player in where.players.items()}
            for where in (gathered(state, rules, mesh), places)
        )
        phases = tuple(_on_whole_parameters(phase, used, kept) for phase in phases)
    step = make_step(
        phases,
        family.optimizers,
        family.ema,
        unroll=mesh.devices.flat[0].platform == "cpu",
        constrain=constrain,
        adjust=family.adjust,
    )
    batches = {
        stream: {
            name: jax.ShapeDtypeStruct(
                (*shape, *leaf.shape), leaf.dtype, sharding=batch_sharding(mesh)
            )
            for name, leaf in family.item.items()
        }
        for stream, shape in streams(family.phases).items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))

    def whole(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    return Program(
        step=jax.jit(
            step, static_argnames="due", donate_argnums=0, out_shardings=(places, everywhere)
        ),
        state=jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            state,
            places,
        ),
        batches=batches,
        key=whole(key),
        frozen={
            name: jax.tree.map(whole, frozen.shapes()) for name, frozen in family.frozen.items()
        },
        items=items_per_step(family.phases),
    )


def _on_mesh(phase: Phase, mesh: Mesh) -> Phase:
    """The phase with a loss that is traced where layers can see the mesh (`parallel.experts`)."""

    def loss(params: Any, game: Game) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return phase.loss(params, game)

    return dataclasses.replace(phase, loss=loss)


def _on_whole_parameters(phase: Phase, used: dict[str, Any], kept: dict[str, Any]) -> Phase:
    """The phase with every player's variables where ``used`` says, as its loss meets them.

    Gradients are where parameters are ``kept``.
    """

    def loss(params: Any, game: Game) -> Any:
        players = jax.lax.with_sharding_constraint(dict(game.players), used)
        own = phase.player
        params = moved(params, used[own]["params"], kept[own]["params"])
        return phase.loss(params, dataclasses.replace(game, players=players))

    return dataclasses.replace(phase, loss=loss)
