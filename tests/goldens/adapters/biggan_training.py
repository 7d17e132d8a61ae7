"""BigGAN's training: hinge gradients, whole steps and trajectories, through the one train step.

The step is run operation by operation around two compiled losses, so that what happens inside it
can be recorded: what networks return, and what reaches the optimizers.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ganjax.adversarial.penalties import add_orthogonal_gradient
from ganjax.adversarial.phases import Game, Outcome, Phase, init_state, make_step
from ganjax.adversarial.state import Ema, Player, TrainState, adam, constant_decay
from ganjax.families.biggan import official
from ganjax.families.biggan.phases import (
    Draws,
    Losses,
    judge_apart,
    judge_together,
    phases,
)
from ganjax.layers.norm import standing_statistics
from tests.goldens.adapters.biggan import (
    Found,
    Options,
    build_discriminator,
    build_generator,
    keep_counters,
    load,
    prefixed,
    to_nchw,
)
from tests.goldens.case import Adapter, Case


@dataclasses.dataclass
class Net:
    """A network of ours and the official names of its state."""

    module: Any
    start: dict[str, np.ndarray]

    @property
    def statistics(self) -> str:
        return official.statistics_of(self.start)

    def variables(self) -> dict[str, Any]:
        return load(self.start, self.module)

    def state(self, variables: Mapping[str, Any]) -> Found:
        """An official state dict; standing counters as they were."""
        state = official.to_official(variables, self.module, statistics=self.statistics)
        return keep_counters(state, self.start)

    def parameters(self, tree: Any) -> Found:
        return official.to_official({"params": tree}, self.module)


class Taped(nn.Module):
    """A network that hands whatever it returns to `record(name, output, side state)`."""

    module: nn.Module
    record: Callable[[str, Any, Any], None]

    @nn.nowrap
    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        output, side = self.module.apply(variables, *args, **kwargs)
        self.record(self.name, output, side)
        return output, side


Tape = list[tuple[str, Any, Any]]


def from_compiled_code(tape: Tape) -> Callable[[str, Any, Any], None]:
    """A `record` that puts values on a tape each time that the compiled code runs."""

    def record(name: str, output: Any, side: Any) -> None:
        def keep(output: Any, side: Any) -> None:
            tape.append((name, np.asarray(output), jax.tree.map(np.asarray, side)))

        jax.debug.callback(keep, output, side, ordered=True)

    return record


def compiled(loss: Any) -> Any:
    """A phase's loss, compiled once for all passes."""

    def inner(params, players, batch, draws):
        game = Game(players, {}, batch, draws, None, {}, 0, 0, 0)
        value, outcome = loss(params, game)
        return value, vars(outcome)

    inner = jax.jit(inner)

    def outer(params: Any, game: Game) -> tuple[Any, Outcome]:
        value, outcome = inner(params, game.players, game.batch, game.draws)
        return value, Outcome(**outcome)

    return outer


def recorder(kept: list[tuple[Any, Any]]) -> optax.GradientTransformation:
    """Passes gradients on, and keeps them with the parameters they are for."""

    def update(updates, state, params=None):
        kept.append((updates, params))
        return updates, state

    return optax.GradientTransformation(lambda params: (), update)


def quick(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same, compiled."""
    return optax.GradientTransformation(transformation.init, jax.jit(transformation.update))


@dataclasses.dataclass(frozen=True)
class Plan:
    """The reference's training options, in our terms.

    Attributes:
        batch: images of a discriminator pass.
        g_batch: images of a generator pass.
        accumulations: passes of an optimizer step, of D and of G.
    """

    options: Options
    batch: int
    g_batch: int
    d_steps: int
    accumulations: tuple[int, int]

    @classmethod
    def of(cls, options: Options) -> "Plan":
        return cls(
            options,
            options["batch_size"],
            options.get("G_batch_size") or options["batch_size"],
            options.get("num_D_steps", 1),
            (options.get("num_D_accumulations", 1), options.get("num_G_accumulations", 1)),
        )

    def passes(self, iteration: str = "") -> list[tuple[str, int, int]]:
        """Player, repeat and microbatch of the passes of an iteration, in order."""
        d, g = self.accumulations
        played = [("d", step, part) for step in range(self.d_steps) for part in range(d)]
        return played + [("g", 0, part) for part in range(g)]


class Run:
    """A training run of ours under the reference's draws and data, recorded."""

    def __init__(self, generator: Net, discriminator: Net, plan: Plan, ema: Net):
        self.generator, self.discriminator, self.plan = generator, discriminator, plan
        self.tape: Tape = []
        record = from_compiled_code(self.tape)
        self.raw: dict[str, list] = {"g": [], "d": []}
        self.fed: dict[str, list] = {"g": [], "d": []}
        options = plan.options
        losses = Losses(
            Taped(generator.module, record, name="g"),
            Taped(discriminator.module, record, name="d"),
            judge_apart if options.get("split_D") else judge_together,
        )
        draws = Draws(generator.module.latent_dim, generator.module.classes)
        d_phase, g_phase = phases(losses, draws, batch=plan.batch, d_steps=plan.d_steps)
        self.phases: tuple[Phase, ...] = (
            dataclasses.replace(
                d_phase, loss=compiled(losses.d_main), microbatches=plan.accumulations[0]
            ),
            dataclasses.replace(
                g_phase,
                loss=compiled(losses.g_main),
                size=plan.g_batch,
                microbatches=plan.accumulations[1],
            ),
        )
        self.optimizers = {"g": self._optimizer("g"), "d": self._optimizer("d")}
        rule = Ema(
            constant_decay(options.get("ema_decay", 0.9999), options.get("ema_start", 0)),
            buffers="average",
        )
        self.step = make_step(self.phases, self.optimizers, rule, unroll=True)
        variables = {"g": generator.variables(), "d": discriminator.variables()}
        self.state: TrainState = init_state(variables, self.phases, self.optimizers, rule)
        self.state = self.state.replace(ema=ema.variables())

    def _optimizer(self, player: str) -> optax.GradientTransformation:
        options, letter = self.plan.options, player.upper()
        descend = adam(
            options[f"{letter}_lr"],
            options.get(f"{letter}_B1", 0.0),
            options.get(f"{letter}_B2", 0.999),
            options.get("adam_eps", 1e-8),
        )
        parts = [recorder(self.raw[player])]
        strength = options.get(f"{letter}_ortho", 0.0)
        if strength:
            parts.append(
                quick(
                    add_orthogonal_gradient(strength, exclude=r"^shared/", embeddings=r"embedding$")
                )
            )
        return optax.chain(*parts, recorder(self.fed[player]), quick(descend))

    def iterate(
        self, images: np.ndarray, labels: np.ndarray, draws: list[tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, list]:
        """One iteration; what its passes returned, by player and in order.

        Args:
            images, labels: the real data of all discriminator passes, in order.
            draws: latents and labels of all passes, in order.
        """
        del self.tape[:]
        for kept in (*self.raw.values(), *self.fed.values()):
            del kept[:]
        plan, (d, g) = self.plan, self.plan.accumulations
        shape = (plan.d_steps, d, plan.batch)
        batch = {
            "image": jnp.asarray(images.reshape(*shape, *images.shape[1:])),
            "label": jnp.asarray(labels.reshape(shape)),
        }
        count = plan.d_steps * d

        def stacked(draws, times, parts, rows):
            z = np.stack([z[:rows] for z, _ in draws])
            y = np.stack([y[:rows] for _, y in draws])
            return {
                "z": jnp.asarray(z.reshape(times, parts, *z.shape[1:])),
                "label": jnp.asarray(y.reshape(times, parts, *y.shape[1:])),
            }

        recorded = {
            "d/main": stacked(draws[:count], plan.d_steps, d, plan.batch),
            "g/main": stacked(draws[count:], 1, g, plan.g_batch),
        }
        self.state, _ = self.step(
            self.state,
            {"real": batch},
            jax.random.key(0),
            recorded=recorded,
            due=("d/main", "g/main"),
        )
        jax.effects_barrier()
        return self._passes()

    def _passes(self) -> dict[str, list]:
        """The tape by passes: fakes, logits of fakes and reals, side state after the pass."""
        tape, passes = list(self.tape), {"d": [], "g": []}
        apart = bool(self.plan.options.get("split_D"))
        for player, _, _ in self.plan.passes():
            _, fake, g_side = tape.pop(0)
            _, logits, d_side = tape.pop(0)
            real = None
            if player == "d" and apart:
                _, real, d_side = tape.pop(0)
            elif player == "d":
                # Interleaved, so that a sharded batch stays where it is.
                real, logits = logits.reshape(-1, 2).T
            passes[player].append(
                {"fake": fake, "logits_fake": logits, "logits_real": real, "g": g_side, "d": d_side}
            )
        if tape:
            raise ValueError(f"{len(tape)} more forward passes than expected")
        return passes

    def states(self) -> Found:
        """`G/`, `D/` and `G_ema/` as official state dicts, `optG/` and `optD/` as Adam's."""
        players = self.state.players
        found = prefixed("G/", self.generator.state(players["g"].variables))
        found |= prefixed("D/", self.discriminator.state(players["d"].variables))
        found |= prefixed("G_ema/", self.generator.state(self.state.ema))
        for player, net in (("g", self.generator), ("d", self.discriminator)):
            found |= prefixed(f"opt{player.upper()}/", adam_state(players[player], net))
        return found


def adam_state(player: Player, net: Net) -> Found:
    """`<parameter>/step`, `/exp_avg`, `/exp_avg_sq`."""
    leaves = jax.tree.leaves(
        player.optimizer["all"], is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState)
    )
    (state,) = [leaf for leaf in leaves if isinstance(leaf, optax.ScaleByAdamState)]
    found: Found = {}
    for slot, tree in (("exp_avg", state.mu), ("exp_avg_sq", state.nu)):
        found |= {f"{name}/{slot}": array for name, array in net.parameters(tree).items()}
    return found | {f"{name}/step": state.count for name in net.parameters(state.mu)}


def hinge_terms(one: Mapping[str, Any]) -> tuple[float, float]:
    """Real and fake term of a discriminator pass, from its logits."""
    real, fake = one["logits_real"], one["logits_fake"]
    return np.maximum(1 - real, 0).mean(), np.maximum(1 + fake, 0).mean()


def hinge_gradients(case: Case) -> Found:
    """`G_D` in training mode: gradients of D, then of G at the same parameters."""
    deep = case.kwargs.get("arch", "BigGAN") != "BigGAN"
    generator = Net(build_generator(case.kwargs["G"], deep), case.group("param/G/"))
    discriminator = Net(build_discriminator(case.kwargs["D"], deep), case.group("param/D/"))
    tape: Tape = []

    def record(*entry: Any) -> None:
        tape.append(entry)

    losses = Losses(
        Taped(generator.module, record, name="g"),
        Taped(discriminator.module, record, name="d"),
        judge_apart if case.call.get("split_D") else judge_together,
    )
    players = {"g": generator.variables(), "d": discriminator.variables()}

    def step(params, players, loss, letter, batch):
        del tape[:]
        draws = {"z": jnp.asarray(case[f"in/z_{letter}"])}
        draws["label"] = jnp.asarray(case[f"in/y_fake_{letter}"])
        game = Game(players, {}, batch, draws, None, {}, 0, 0, len(draws["z"]))
        value, outcome = loss(params, game)
        # The tape is read while it holds values of this very trace.
        return value, (vars(outcome), value, [output for _, output, _ in tape])

    def gradient(player, loss, letter, batch):
        differentiated = jax.grad(
            lambda params, players, batch: step(params, players, loss, letter, batch), has_aux=True
        )
        return jax.jit(differentiated)(players[player]["params"], players, batch)

    def keep(collections):
        for name, changed in collections.items():
            players[name] = {**players[name], **changed}

    def after(prefix):
        found = {}
        for name, net in (("G", generator), ("D", discriminator)):
            found |= prefixed(f"{prefix}/state_after/{name}/", net.state(players[name.lower()]))
        return found

    batch = {
        "image": jnp.asarray(case.images("in/x_real")),
        "label": jnp.asarray(case["in/y_real"]),
    }
    d_gradient, (outcome, _, (_, *logits)) = gradient("d", losses.d_main, "D", batch)
    if len(logits) == 1:  # one pass, of reals and fakes interleaved
        logits = logits[0].reshape(-1, 2).T[::-1]
    keep(outcome["collections"])
    found = prefixed("grad/D_step/D/", discriminator.parameters(d_gradient)) | after("out/D_step")
    found |= {
        "out/D_step/logits_fake": logits[0][:, None],
        "out/D_step/logits_real": logits[1][:, None],
        "out/D_step/loss_real": outcome["metrics"]["loss_real"],
        "out/D_step/loss_fake": outcome["metrics"]["loss_fake"],
    }
    g_gradient, (outcome, value, (fake, logits)) = gradient("g", losses.g_main, "G", None)
    keep(outcome["collections"])
    found |= prefixed("grad/G_step/G/", generator.parameters(g_gradient)) | after("out/G_step")
    return found | {
        "out/G_step/logits_fake": logits[:, None],
        "out/G_step/loss": value,
        "out/G_step/img": to_nchw(fake),
    }


def train_step(case: Case) -> Found:
    """`GAN_training_function`, called a few times."""
    options = {**case.kwargs["D"], **case.kwargs["G"], **case.call["config"]}
    deep = options.get("model", "BigGAN") != "BigGAN"
    generator = Net(build_generator(case.kwargs["G"], deep), case.group("param/G/"))
    discriminator = Net(build_discriminator(case.kwargs["D"], deep), case.group("param/D/"))
    average = Net(generator.module, case.group("param/_ema/") or generator.start)
    run = Run(generator, discriminator, Plan.of(options), average)
    drawn, found = 0, {}
    for iteration in range(case.call["iters"]):
        count = len(run.plan.passes())
        draws = [
            (case[f"in/z_draw{i}"], case[f"in/y_draw{i}"]) for i in range(drawn, drawn + count)
        ]
        drawn += count
        passes = run.iterate(
            case.images(f"in/x_real_it{iteration}"), case[f"in/y_real_it{iteration}"], draws
        )
        real, fake = hinge_terms(passes["d"][-1])
        g_loss = -passes["g"][-1]["logits_fake"].mean() / run.plan.accumulations[1]
        found |= prefixed(
            f"out/metrics_it{iteration}/",
            {"G_loss": g_loss, "D_loss_real": real, "D_loss_fake": fake},
        )
        found |= prefixed(f"out/state_after_it{iteration}/", run.states())
        for letter, net, steps in (("D", discriminator, run.plan.d_steps), ("G", generator, 1)):
            for step, (gradient, _) in enumerate(run.fed[letter.lower()]):
                prefix = f"out/grad_before_step/{letter}{iteration * steps + step}/"
                found |= prefixed(prefix, net.parameters(gradient))
    return found


def trajectory(case: Case) -> Found:
    """A whole run: every pass, gradients, states after each iteration, sampling at the end."""
    config = case.meta["config"]
    deep = config.get("model", "BigGAN") != "BigGAN"
    generator = Net(build_generator(config, deep), case.group("init/G/"))
    discriminator = Net(build_discriminator(config, deep), case.group("init/D/"))
    average = Net(generator.module, case.group("init/G_ema/"))
    run = Run(generator, discriminator, Plan.of(config), average)
    found: Found = {}
    for iteration in range(1, case.meta["n_iterations"] + 1):
        tags = {
            "d": [f"D{step}a{part}" for name, step, part in run.plan.passes() if name == "d"],
            "g": [f"G{part}" for name, _, part in run.plan.passes() if name == "g"],
        }
        names = [f"rand/it{iteration}_{tag}" for tag in (*tags["d"], *tags["g"])]
        draws = [(case[f"{name}_z"], case[f"{name}_y"]) for name in names]
        images, labels = case.images(f"data/real{iteration}"), case[f"data/label{iteration}"]
        passes = run.iterate(images, labels, draws)
        found |= _pass_outputs(f"out/it{iteration}_", tags, passes, run.plan)
        found |= prefixed(f"step{iteration}/", run.states())
        for step, (gradient, _) in enumerate(run.fed["d"]):
            found |= prefixed(f"grad/it{iteration}_D{step}/", discriminator.parameters(gradient))
        found |= prefixed(
            f"grad/it{iteration}_G_before_ortho/", generator.parameters(run.raw["g"][0][0])
        )
        for step in range(run.plan.d_steps - 1):
            # What the next update starts from, beside what the last pass left behind.
            _, params = run.fed["d"][step + 1]
            side = passes["d"][(step + 1) * run.plan.accumulations[0] - 1]["d"]
            state = discriminator.state({"params": params, **side})
            found |= prefixed(f"sub/it{iteration}_D{step}/D/", state)
    return found | _final(case, run)


def _pass_outputs(prefix: str, tags: Any, passes: Any, plan: Plan) -> Found:
    found: Found = {}
    for tag, one in zip(tags["d"], passes["d"]):
        real, fake = hinge_terms(one)
        found |= {f"{prefix}{tag}_loss_real": real, f"{prefix}{tag}_loss_fake": fake}
        found[f"{prefix}{tag}_fake"] = to_nchw(one["fake"])
        logits = [one["logits_fake"][:, None], one["logits_real"][:, None]]
        if plan.options.get("split_D"):
            found[f"{prefix}{tag}_D_out0"], found[f"{prefix}{tag}_D_out1"] = logits
        else:
            found[f"{prefix}{tag}_D_out0"] = np.concatenate(logits)
    for tag, one in zip(tags["g"], passes["g"]):
        found[f"{prefix}{tag}_fake"] = to_nchw(one["fake"])
        found[f"{prefix}{tag}_D_out0"] = one["logits_fake"][:, None]
        found[f"{prefix}{tag}_loss_G"] = -one["logits_fake"].mean()
    last_real, last_fake = hinge_terms(passes["d"][-1])
    return found | {
        f"{prefix}metric_G_loss": -passes["g"][-1]["logits_fake"].mean() / plan.accumulations[1],
        f"{prefix}metric_D_loss_real": last_real,
        f"{prefix}metric_D_loss_fake": last_fake,
    }


def _final(case: Case, run: Run) -> Found:
    """Evaluation-mode outputs of the trained networks, and standing statistics."""
    generator, discriminator = run.generator.module, run.discriminator.module
    z, y = jnp.asarray(case["final/z"]), jnp.asarray(case["final/y"])
    sample = jax.jit(lambda variables, z, y: generator.apply(variables, z, y, train=False))
    image = sample(run.state.ema, z, y)
    logits = jax.jit(discriminator.apply)(run.state.players["d"].variables, image, y)
    found = {
        "final/eval_G_ema_img": to_nchw(image),
        "final/eval_G_img": to_nchw(sample(run.state.players["g"].variables, z, y)),
        "final/eval_D_logits_on_G_ema_img": logits[:, None],
    }
    count = len([key for key in case.stored if re.match(r"standing/z\d+$", key)])
    if not count:
        return found

    @jax.jit
    def one_pass(variables, batch):
        _, mutated = generator.apply(
            variables, *batch, train=True, mutable=["batch_moments", "spectral"]
        )
        return mutated

    batches = [
        (jnp.asarray(case[f"standing/z{i}"]), jnp.asarray(case[f"standing/y{i}"]))
        for i in range(count)
    ]
    standing = standing_statistics(one_pass, run.state.ema, batches)
    found["standing/eval_img"] = to_nchw(sample(standing, z, y))
    # The reference keeps sums, and divides by the count where it normalises.
    sums = {**standing, "batch_stats": jax.tree.map(lambda s: s * count, standing["batch_stats"])}
    state = official.to_official(sums, generator, statistics=run.generator.statistics)
    for name in state:
        if official.IGNORED.search(name):
            state[name] = np.array([count])
    return found | prefixed("standing/G_ema/", state)


ADAPTERS = (
    Adapter("biggan", r"^hinge_grads", r"BigGAN(deep)?\.py:G_D, losses", hinge_gradients),
    Adapter(
        "biggan", r"^train_step", r"train_fns\.py:GAN_training_function", train_step, wide=True
    ),
    Adapter(
        "trajectory",
        r"^biggan",
        r"BigGAN-PyTorch.*train_fns\.py:GAN_training_function",
        trajectory,
        wide=True,
        given=r"^(init|data|rand)/|^(final|standing)/[zy]\d*$",
    ),
)
