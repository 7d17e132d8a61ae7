"""StyleGAN2's training: losses, optimizer and average, and trajectories through the train step.

The step is run operation by operation around compiled losses, so that what happens inside can be
recorded: what networks return, and what reaches the optimizers.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from ganjax.adversarial.ada import Adaptive, Fixed
from ganjax.adversarial.phases import (
    Game,
    Outcome,
    Phase,
    due,
    init_state,
    keep_extras,
    make_step,
)
from ganjax.adversarial.state import Ema, Player, adam
from ganjax.families.stylegan2 import official
from ganjax.families.stylegan2.phases import (
    PATH_TOUCHES,
    R1_TOUCHES,
    Blur,
    Losses,
    finite_gradients,
    half_life_decay,
    phases,
)
from tests.goldens.adapters.ada import build, draws_of
from tests.goldens.adapters.biggan import prefixed
from tests.goldens.adapters.biggan_training import quick
from tests.goldens.adapters.stylegan2 import (
    array_of,
    build_discriminator,
    build_generator,
    is_old,
    load,
)
from tests.goldens.adapters.stylegan2_ops import Found, only, to_nchw
from tests.goldens.case import Adapter, Case

Tape = list[tuple[str, np.ndarray]]

OLD_DEFAULTS = {"style_mixing_prob": 0.9, "pl_weight": 2}  # of stylegan2-ada-pytorch
NAMES = {"Gmain": "g/main", "Greg": "g/path", "Dmain": "d/main", "Dreg": "d/r1"}


@dataclasses.dataclass(frozen=True)
class Taping:
    """Before `Losses`: what their parts return goes on a tape whenever compiled code runs them."""

    record: Callable[[str, Any], None] = lambda name, value: None

    def _kept(self, name: str, value: Any) -> Any:
        jax.debug.callback(lambda value: self.record(name, value), value, ordered=True)
        return value

    def styles(self, variables, draws, phase):
        ws, side = super().styles(variables, draws, phase)
        return self._kept("ws", ws), side

    def images(self, variables, ws, draws, phase=""):
        images, side = super().images(variables, ws, draws, phase)
        return self._kept("images", images), side

    def judge(self, variables, images, told):
        return self._kept("logits", super().judge(variables, images, told))

    def path_gradient(self, variables, ws, draws):
        return self._kept("path", super().path_gradient(variables, ws, draws))

    def r1_gradient(self, variables, images, told, game):
        gradient, logits = super().r1_gradient(variables, images, told, game)
        return self._kept("r1", gradient), logits


@dataclasses.dataclass(frozen=True)
class Taped(Taping, Losses):
    """StyleGAN2's."""


def build_losses(
    generator: Any,
    discriminator: Any,
    options: Mapping[str, Any],
    old: bool,
    make: Callable[..., Any] = Taped,
):
    """Losses for the reference's constructor arguments, and the tape that they fill."""
    only(
        options,
        "class_name r1_gamma style_mixing_prob pl_weight pl_batch_shrink pl_decay"
        " pl_no_weight_grad blur_init_sigma blur_fade_kimg",
    )
    options = {**(OLD_DEFAULTS if old else {}), **options}
    tape: Tape = []
    blur = None
    if options.get("blur_init_sigma", 0) and options.get("blur_fade_kimg", 0):
        blur = Blur(float(options["blur_init_sigma"]), float(options["blur_fade_kimg"] * 1000))
    losses = make(
        generator,
        discriminator,
        r1_gamma=float(options.get("r1_gamma", 10)),
        mixing=float(options.get("style_mixing_prob", 0)),
        path_weight=float(options.get("pl_weight", 0)),
        path_decay=float(options.get("pl_decay", 0.01)),
        averages_in=("g/main", "g/path", "d/main") if old else ("d/main",),
        blur=blur,
        record=lambda name, value: tape.append((name, np.asarray(value))),
    )
    return losses, options.get("pl_batch_shrink", 2), tape


def build_augment(options: Mapping[str, Any]) -> Fixed | None:
    """ADA for the training loop's arguments."""
    if not options.get("augment_kwargs"):
        return None
    pipe, p = build(options["augment_kwargs"]), float(options.get("augment_p") or 0)
    if options.get("ada_target") is None:
        return Fixed(pipe, p)
    return Adaptive(
        pipe,
        p,
        batch=options["batch_size"],
        target=options["ada_target"],
        every=options["ada_interval"],
        ramp_images=options["ada_kimg"] * 1000,
    )


@dataclasses.dataclass
class Path:
    """The running mean of path lengths, followed from outside."""

    mean: float
    decay: float

    def penalties(self, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of a microbatch, and squared distances from the mean that they have moved."""
        lengths = np.sqrt(np.square(gradient).sum(2).mean(1))
        self.mean += self.decay * (lengths.mean() - self.mean)
        return lengths, np.square(lengths - self.mean)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def reported(name: str, tape: Tape, losses: Losses, path: Path) -> Iterator[tuple[str, Any]]:
    """What a phase tells of each sample, from a microbatch's tape; taken off the tape."""

    def take(kind: str) -> np.ndarray:
        found, value = tape.pop(0)
        if found != kind:
            raise ValueError(f"{name} made {found} where {kind} was expected")
        return value

    if name != "d/r1":
        ws = take("ws")
        yield "ws", ws
        yield "gen_img", to_nchw(take("images"))
    if name == "g/main":
        fake = take("logits")[:, None]
        yield from {"scores_fake": fake, "G_loss": softplus(-fake)}.items()
    elif name == "g/path":
        gradient = take("path")
        lengths, penalty = path.penalties(gradient)
        yield from {"pl_grads_ws": gradient, "pl_lengths": lengths}.items()
        yield from {"pl_penalty": penalty, "G_reg": losses.path_weight * penalty}.items()
    elif name == "d/main":
        fake = take("logits")
        if len(fake) > len(ws):  # one pass, of fakes and reals interleaved
            fake, real = fake.reshape(-1, 2).T
        else:
            real = take("logits")
        fake, real = fake[:, None], real[:, None]
        yield from {"scores_fake": fake, "scores_real": real}.items()
        yield "D_loss", softplus(fake) + softplus(-real)
    else:
        yield "scores_real", take("logits")[:, None]
        penalty = np.square(take("r1")).sum((1, 2, 3))
        yield from {"r1_penalty": penalty, "D_reg": losses.r1_gamma / 2 * penalty}.items()


# Losses


def loss(case: Case) -> Found:
    """`StyleGAN2Loss.accumulate_gradients`, phase by phase."""
    only(case.call, "batch phases loss_kwargs cur_nimg pl_mean gain labels")
    old = is_old(case)
    generator = build_generator(case.kwargs["G"], old)
    discriminator = build_discriminator(case.kwargs["D"], old)
    modules = {"g": generator, "d": discriminator}
    players = {
        letter: load(case.group(f"param/{letter.upper()}/"), modules[letter]) for letter in modules
    }
    losses, shrink, tape = build_losses(generator, discriminator, case.call["loss_kwargs"], old)
    path = Path(float(case["in/pl_mean"]), losses.path_decay)
    batch = {"image": jnp.asarray(case.images("in/real_img"))}
    batch |= {"label": array_of(case, "in/real_c")} if "in/real_c" in case else {}
    found: Found = {}
    for phase in case.call["phases"]:
        parts = [f"{phase[0]}main", f"{phase[0]}reg"] if phase.endswith("both") else [phase]
        recorded = sorted(case.group(f"in/draw_{phase}/").items())
        total: Any = None
        for part in parts:
            name = NAMES[part]
            if not {"g/path": losses.path_weight, "d/r1": losses.r1_gamma}.get(name, 1):
                continue
            draws = loss_draws(case, name, losses, shrink, recorded)
            game = Game(
                players,
                {"path_mean": jnp.asarray(path.mean, case.dtype)},
                batch,
                draws,
                None,
                {},
                0,
                jnp.asarray(case.call.get("cur_nimg", 0)),
                len(batch["image"]),
            )
            gradient, outcome = gradient_of(losses, name, game)
            mean = float(outcome["extras"].get("path_mean", path.mean))
            for key, value in reported(name, tape, losses, path):
                found |= loss_outputs(phase, key, value)
            total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
            averages = outcome["collections"].get("g", {}).get("averages")
            if name == "d/main" and averages:
                found[f"out/{phase}/w_avg_after"] = averages["mapping"]["w_avg"]
            if name == "g/path":
                found[f"out/{phase}/pl_mean_after"] = path.mean = mean
        if total is None:  # a regulariser of weight 0 plays nothing
            continue
        letter = phase[0].lower()
        gain = case.call["gain"].get(phase, 1)
        total = jax.tree.map(lambda leaf, gain=gain: leaf * gain, total)
        gradients = official.to_official({"params": total}, modules[letter])
        found |= prefixed(f"grad/{phase}/{phase[0]}/", gradients)
        untouched = {"Greg": PATH_TOUCHES, "Dreg": R1_TOUCHES}.get(phase, ".*")
        names = ["/".join(key) for key in flatten_dict(players[letter]["params"])]
        count = 0 if old else sum(not re.search(untouched, name) for name in names)
        found[f"out/{phase}/params_without_grad_count"] = np.array(count)
    return found | loss_extras(case, losses, players, batch)


def gradient_of(losses: Losses, name: str, game: Game) -> tuple[Any, dict[str, Any]]:
    """A phase's gradient and outcome."""
    function = getattr(losses, name.replace("/", "_"))

    def objective(params, game):
        value, outcome = function(params, Game(**game))
        return value, vars(outcome)

    given = vars(game)
    static = {key: given[key] for key in ("frozen", "passed", "step", "size")}
    traced = {key: value for key, value in given.items() if key not in static}
    differentiated = jax.grad(
        lambda params, traced: objective(params, {**traced, **static}), has_aux=True
    )
    gradient, outcome = jax.jit(differentiated)(game.players[name[0]]["params"], traced)
    jax.effects_barrier()
    return gradient, outcome


def loss_draws(case: Case, name: str, losses: Losses, shrink: int, recorded: list) -> Found:
    """A pass's draws: `recorded` are those of the phase, taken in order."""
    if name == "d/r1":
        return {}
    count = len(case["in/gen_z"]) // (shrink if name == "g/path" else 1)
    draws: Found = {"z": jnp.asarray(case["in/gen_z"])[:count]}
    if "in/gen_c" in case:
        draws["label"] = jnp.asarray(case["in/gen_c"])[:count]
    if losses.mixing:
        for key in ("cutoff", "mixing", "mixing_z"):
            draws[key] = jnp.asarray(recorded.pop(0)[1])
    if name == "g/path":
        draws["pixels"] = jnp.asarray(recorded.pop(0)[1].transpose(0, 2, 3, 1))
    return draws


def loss_outputs(phase: str, key: str, value: Any) -> Found:
    """A reported value under the names of the loss cases."""
    slashed = re.sub("^(scores|G|D)_", r"\1/", key)
    found = {f"out/{phase}/{slashed}": value, f"out/{key}": value}
    if key.startswith("scores"):
        found[f"out/{phase}/{slashed.replace('scores', 'signs')}"] = np.sign(value)
    return found


def loss_extras(case: Case, losses: Losses, players: Any, batch: Any) -> Found:
    """Images of the latents as they are, and the gradient of R1 on the reals."""
    sharp = dataclasses.replace(losses, blur=None)
    draws = {"z": jnp.asarray(case["in/gen_z"]), "label": array_of(case, "in/gen_c")}

    @jax.jit
    def compute(players, batch, draws):
        ws = sharp.generator.apply(players["g"], draws["z"], draws["label"], method="styles")
        images, _ = Losses.images(sharp, players["g"], ws, draws)
        game = Game(players, {}, batch, {}, None, {}, 0, 0, len(batch["image"]))
        gradient, _ = sharp.r1_gradient(players["d"], batch["image"], sharp.told(batch), game)
        return images, gradient

    images, gradient = compute(players, batch, draws)
    return {"out/gen_img": to_nchw(images), "out/r1_grad_img": to_nchw(gradient)}


# Trajectories


class Run:
    """A training run of ours under the reference's draws and data, recorded."""

    official: Any = official
    frames = 1  # that count as images where the average begins

    def __init__(self, case: Case):
        meta, options = case.meta, case.meta["kwargs"]
        self.case, self.old = case, "NVlabs/stylegan3" not in meta["reference"]
        if not options["G_reg_interval"] or not options["D_reg_interval"]:
            raise ValueError("reg_interval=None: main and regularising phases in one")
        size = {
            "img_resolution": meta["resolution"],
            "c_dim": meta["c_dim"],
            "img_channels": case["data/real1"].shape[-3],
        }
        self.modules = self._networks(options, size)
        self.losses, self.shrink, self.tape = self._losses(options["loss_kwargs"])
        self.batch, self.rounds = (
            options["batch_size"],
            options["batch_size"] // options["batch_gpu"],
        )
        self.augment = build_augment(options)
        self.losses = dataclasses.replace(self.losses, augment=self.augment)
        self.fed: list[tuple[str, Any]] = []
        self.playing = ""
        self.phases: tuple[Phase, ...] = tuple(
            dataclasses.replace(phase, loss=self._noted(phase.name, phase.loss))
            for phase in phases(
                self.losses,
                batch=self.batch,
                microbatches=self.rounds,
                path_every=options["G_reg_interval"],
                path_shrink=self.shrink,
                r1_every=options["D_reg_interval"],
                touch_all=self.old,
            )
        )
        self.optimizers = {letter: self._optimizer(letter, options) for letter in "gd"}
        ramp_up = options["ema_rampup"] and options["ema_rampup"] * self.frames
        self.decay = half_life_decay(self.batch, options["ema_kimg"] * 1000, ramp_up)
        rule = Ema(self.decay)
        self.step = make_step(
            self.phases,
            self.optimizers,
            rule,
            unroll=True,
            adjust=self.augment.adjust if self.augment else keep_extras,
        )
        variables = {
            letter: load(case.group(f"init/{letter.upper()}/"), module, self.official)
            for letter, module in self.modules.items()
        }
        extras = {"path_mean": jnp.asarray(case["init/pl_mean"])}
        extras |= self.augment.extras() if self.augment else {}
        self.state = init_state(variables, self.phases, self.optimizers, rule, extras)
        average = load(case.group("init/G_ema/"), self.modules["g"], self.official)
        self.state = self.state.replace(ema=average)
        self.path = Path(float(case["init/pl_mean"]), self.losses.path_decay)

    def _networks(self, options: Mapping[str, Any], size: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "g": build_generator({**options["G_kwargs"], **size}, self.old),
            "d": build_discriminator({**options["D_kwargs"], **size}, self.old),
        }

    def _losses(self, options: Mapping[str, Any]) -> tuple[Any, int, Tape]:
        return build_losses(*self.modules.values(), options, self.old)

    def _noted(self, name: str, function: Any) -> Any:
        """A phase's loss, compiled once for all passes, which tells that it is played."""

        def inner(params, players, extras, batch, draws, items):
            game = Game(players, extras, batch, draws, None, {}, 0, items, self.batch)
            value, outcome = function(params, game)
            return value, vars(outcome)

        inner = jax.jit(inner)

        def outer(params: Any, game: Game) -> tuple[Any, Outcome]:
            self.playing = name
            value, outcome = inner(
                params, game.players, game.extras, game.batch, game.draws, game.items
            )
            return value, Outcome(**outcome)

        return outer

    def _optimizer(self, letter: str, options: Mapping[str, Any]) -> optax.GradientTransformation:
        given = options[f"{letter.upper()}_opt_kwargs"]
        only(given, "class_name lr betas eps")

        def keep(updates, params):
            self.fed.append((self.playing, updates))
            return updates

        descend = adam(
            given["lr"],
            *map(float, given["betas"]),
            given["eps"],
            lazy=options[f"{letter.upper()}_reg_interval"],
        )
        return optax.chain(finite_gradients(), optax.stateless(keep), quick(descend))

    def iterate(self, iteration: int) -> Found:
        """An iteration, numbered from 1: what passes returned, gradients, the state after it."""
        shape = (1, self.rounds, self.batch // self.rounds)
        batch = {
            name: jnp.asarray(array.reshape(*shape, *array.shape[1:]))
            for name, array in self._batch(iteration).items()
        }
        names = due(self.phases, iteration - 1)
        decay = self.decay(self.state.step + 1, self.state.items)
        del self.tape[:], self.fed[:]
        recorded = {
            NAMES[key]: self._draws(f"rand/it{iteration}_{key}", NAMES[key])
            for key in NAMES
            if NAMES[key] in names
        }
        self.state, _ = self.step(
            self.state, {"real": batch}, jax.random.key(0), recorded=recorded, due=names
        )
        jax.effects_barrier()
        found: Found = {}
        for key in (key for key, name in NAMES.items() if name in names):
            for part in range(self.rounds):
                told = self._reported(NAMES[key])
                found |= prefixed(f"out/it{iteration}_{key}_r{part}_", told)
            for name, updates in self.fed:
                if name == NAMES[key]:
                    module = self.modules[name[0]]
                    gradients = self.official.to_official({"params": updates}, module)
                    found |= prefixed(f"grad/it{iteration}_{key}/", gradients)
        if self.tape:
            raise ValueError(f"{len(self.tape)} more recorded values than expected")
        found[f"step{iteration}/ema_beta"] = decay
        found[f"step{iteration}/pl_mean"] = self.state.extras["path_mean"]
        if self.augment:
            found[f"step{iteration}/ada_p"] = self.augment.probability(self.state.extras)
        return found | prefixed(f"step{iteration}/", self._states())

    def _batch(self, iteration: int) -> Found:
        """Reals as the stream yields them."""
        images = self.case.stored[f"data/real{iteration}"]
        batch: Found = {"image": np.moveaxis(images, -3, -1)}
        if self.case.meta["c_dim"]:
            batch["label"] = self.case[f"data/label{iteration}"]
        return batch

    def _reported(self, name: str) -> Found:
        """What a microbatch of a phase tells."""
        return dict(reported(name, self.tape, self.losses, self.path))

    def _draws(self, prefix: str, name: str) -> Found:
        """Recorded draws of a phase, with leading [1, rounds]."""
        count = self.batch // self.rounds
        taken = count // (self.shrink if name == "g/path" else 1)
        rounds = []
        for part in range(self.rounds):
            own = f"{prefix}_r{part}_"
            views: Found = {
                f"{kind}_view": draws_of(found, self.frames)
                for kind in ("fake", "real")
                if (found := self.case.group(f"{own}aug_{kind}_"))
            }
            if name == "d/r1":
                rounds.append(views)
                continue
            rows = slice(part * count, part * count + taken)
            draws: Found = {"z": self.case[f"{prefix}_z"][rows], **views}
            draws |= self._more(prefix, own, rows)
            if self.case.meta["c_dim"]:
                draws["label"] = self.case[f"{prefix}_c"][rows]
            draws["noise"] = {
                key: jnp.asarray(array.transpose(0, 2, 3, 1))
                for key, array in self.case.group(f"{own}noise_").items()
            }
            if self.losses.mixing:
                for key, end in (("cutoff", "cutoff"), ("mixing", "u"), ("mixing_z", "z")):
                    draws[key] = self.case[f"{own}mix_{end}"]
            if name == "g/path":
                draws["pixels"] = self.case.images(f"{own}pl_noise")
            rounds.append(draws)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *rounds)

    def _more(self, prefix: str, own: str, rows: slice) -> Found:
        """Draws of fakes beside StyleGAN2's."""
        return {}

    def _states(self) -> Found:
        """`G/`, `D/`, `G_ema/` as official state dicts, `optG/` and `optD/` as Adam's."""
        players = self.state.players
        found: Found = {}
        trees = {"G": players["g"].variables, "D": players["d"].variables, "G_ema": self.state.ema}
        for name, tree in trees.items():
            module = self.modules[name[0].lower()]
            state = self.official.to_official(tree, module) | self.official.constants(module)
            found |= prefixed(f"{name}/", state)
        for letter in "gd":
            moments = adam_moments(players[letter], self.modules[letter], self.official)
            found |= prefixed(f"opt{letter.upper()}/", moments)
        return found

    def sample(self, labels: Any, **truncation: Any) -> Any:
        """Images of the average at the end."""
        z = jnp.asarray(self.case["final/z"])
        return self.modules["g"].apply(self.state.ema, z, labels, **truncation)


def adam_moments(player: Player, module: Any, official: Any = official) -> Found:
    """`<parameter>/step`, `/exp_avg`, `/exp_avg_sq`, over all groups of parameters."""
    found: Found = {}
    leaves = jax.tree.leaves(
        player.optimizer, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState)
    )
    for state in (leaf for leaf in leaves if isinstance(leaf, optax.ScaleByAdamState)):
        for slot, tree in (("exp_avg", state.mu), ("exp_avg_sq", state.nu)):
            arrays = official.to_official({"params": tree}, module)
            found |= {f"{name}/{slot}": array for name, array in arrays.items()}
            found |= {f"{name}/step": state.count for name in arrays}
    return found


def trajectory(case: Case, make: type[Run] = Run) -> Found:
    """A whole run: every pass, gradients, states after each iteration, samples at the end."""
    run = make(case)
    found: Found = {}
    for iteration in range(1, case.meta["n_iterations"] + 1):
        found |= run.iterate(iteration)
    labels = jnp.asarray(case["final/c"]) if case.meta["c_dim"] else None
    for key in case.stored:
        match = re.fullmatch(r"final/G_ema_img_psi([\d.]+?)(?:_cutoff(\d+))?", key)
        if match:
            images = run.sample(
                labels,
                truncation=float(match[1]),
                cutoff=int(match[2]) if match[2] else None,
            )
            found[key] = to_nchw(images)
    return found


ADAPTERS = (
    Adapter("stylegan2", r"^loss", r"training/loss\.py:StyleGAN2Loss$", loss),
    Adapter(
        "trajectory",
        r"^stylegan2",
        r"NVlabs/(stylegan3|stylegan2-ada-pytorch) \S+ training/training_loop\.py \+",
        trajectory,
        wide=True,
        given=r"^(init|data|rand)/|^final/[zc]$",
    ),
)
