"""Training: the host's loop. Progress is counted in images of the real stream."""

import contextlib
import errno
import json
import math
import pathlib
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ganjax import checkpoint, evaluate, generate
from ganjax.adversarial.phases import due, programs
from ganjax.collapse import Watch
from ganjax.config import ConfigError
from ganjax.data.pipeline import Stream
from ganjax.data.sources import (
    Source,
    fit_classes,
    make_transform,
    open_source,
    read_options,
)
from ganjax.family import Request, build, settle
from ganjax.growing import Growing
from ganjax.layers.images import to_uint8
from ganjax.logs import Logger
from ganjax.metrics.watch import CollapseError, check_finite
from ganjax.parallel.mesh import batch_sharding, make_mesh, replicated
from ganjax.parallel.preemption import Preemption
from ganjax.parallel.rules import whole
from ganjax.program import Program, assemble
from ganjax.workdir import claim, local, write_atomically

DATA = "data.json"
SHOWN_SEED = 1  # of the pictures that training shows: the same latents throughout


def train(config: ConfigDict, workdir: str | pathlib.Path) -> pathlib.Path:
    """Train until ``config.train.images``, continuing whatever the workdir holds.

    Returns:
      The workdir.

    Raises:
      ValueError: a config that cannot be; raised before anything compiles.
      FileNotFoundError: no data; says what to prepare and how.
      CheckpointError: the workdir's checkpoints cannot be read or written.
      CollapseError: a number is not finite, or a rule of ``config.watch`` was broken; checkpoints
        from before stay.
      OSError: the disk is full; checkpoints from before stay.
    """
    try:
        with contextlib.ExitStack() as stack:
            run = Run(config, workdir, stack)
            if run.images >= run.total:
                run.log.status(f"{run.workdir} is done: {run.images} of {run.total} images.")
            else:
                try:
                    run.play()
                except CollapseError as error:
                    run.checkpoints.wait()
                    raise CollapseError(f"{error} {_kept(run.workdir)}") from error
            run.log.status(run.farewell())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        path = local(workdir)
        said = f"{error.strerror} in {path}. Make room. {_kept(path)}"
        raise OSError(error.errno, said) from error
    return run.workdir


class Run:
    """A run in a workdir, at the place where it stopped.

    Args:
      config: of a config file.
      workdir: the same directory for all hosts; made if it is not there.
      stack: closes what the run opens, the lock of the workdir last.

    Attributes:
      images: seen so far, of ``total``.
    """

    def __init__(
        self, config: ConfigDict, workdir: str | pathlib.Path, stack: contextlib.ExitStack
    ):
        # What can be wrong is found before anything compiles: data, workdir, mesh, batch, rules.
        if config.train.images < 1:
            raise ConfigError(
                f"config.train.images={config.train.images}: how many real images D sees until the "
                "run ends; at least 1 is wanted."
            )
        options = read_options(config.data)
        self._source = source = open_source(config.data)
        if "classes" in config.data:
            config = config.copy_and_resolve_references().unlock()
            config.data.classes = fit_classes(config.data.classes, source)
        path = stack.enter_context(claim(workdir))
        begun = checkpoint.begun(path)
        config, self._decided = settle(config, jax.device_count(), begun)
        self.config = config
        self.workdir = checkpoint.prepare(path, config)
        if jax.process_index() == 0:
            _note_data(self.workdir / DATA, source)
        self._mesh = make_mesh(config.mesh)
        self._family = build(config, self._mesh.devices.flat[0].platform)
        self._program = assemble(self._family, self._mesh)
        if ("clip" in self._family.item) != bool(options.clip):
            raise ConfigError(
                f"{config.family} trains on {' and '.join(self._family.item)}; config.data gives "
                f"{'clips. Set' if options.clip else 'images: only families of videos set'} "
                "config.data.clip"
                f"{'=None.' if options.clip else ', as their config files do.'}"
            )
        # Also what a picture will show, such as texts with words that nobody knows.
        jax.eval_shape(lambda: self._family.draws(jax.random.key(0), jnp.arange(1), Request()))
        self.total = steps_for(config.train.images, self._program.items) * self._program.items
        self._frozen = self._program.place_frozen(self._family.load_frozen())
        self._watch = Watch(self._family, self._mesh, config, self._frozen)
        self._evaluation = None
        metrics, samples = config.evaluate.metrics, config.evaluate.samples
        known = evaluate.metric_names(config.data.source, self._family)
        # A preset that is given other data, which has no metrics yet, trains without.
        if config.evaluate.every_images and (known or metrics):
            self._evaluation = evaluate.Evaluation(
                config, source, metrics, samples, family=self._family
            )

        # Continue, or begin.
        self._key = jax.random.key(config.seed)
        self.checkpoints = stack.enter_context(
            checkpoint.Checkpoints(self.workdir, config.checkpoint.keep, checkpoint.RANK, config)
        )
        if self.checkpoints.latest_step() is None:
            self._state = self._program.place(self._family.init(self._key))
        else:
            self._state, step = self.checkpoints.restore(self._program.state)
            self._watch.remember(self.checkpoints.metrics(step))
        self.images = int(self._state.items)

        self._preemption = stack.enter_context(Preemption())
        self.log = stack.enter_context(Logger(self.workdir, self.images))
        self._stream = stack.enter_context(
            contextlib.closing(
                Stream(
                    source,
                    make_transform(options),
                    shape=jax.tree.leaves(self._program.batches["real"])[0].shape[:3],
                    seed=config.seed,
                    sharding=batch_sharding(self._mesh),
                    start_items=self.images,
                    threads=options.threads,
                    prefetch=options.prefetch,
                    max_broken=options.max_broken,
                )
            )
        )
        self._samplers = generate.Programs(self._family, replicated(self._mesh))
        self._request = Request(names=source.classes, rows=config.log.grid_rows)
        self._growing = None
        if self._family.growth:
            self._growing = Growing(self._family.growth, source, options, self._state.extras)
        self._compiled: dict[tuple[str, ...], Any] = {}
        # Compiles what the next stage plays while this one does.
        self._ahead: dict[tuple[str, ...], Future] = {}
        self._pool = stack.enter_context(ThreadPoolExecutor(1))
        self._pending: list[Mapping[str, Any]] = []  # metrics of steps since the last report

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.images // self._program.items

    def play(self) -> None:
        """Steps, with reports, pictures and checkpoints when they are due, until done or told."""
        config = self.config
        every = {
            "scalars": config.log.scalars_every_images,
            "watch": config.watch.every_images,
            "grid": config.log.grid_every_images,
            "save": config.checkpoint.every_images,
        }
        if self._evaluation:
            every["evaluate"] = config.evaluate.every_images
        self.log.status(self._greeting())
        self._progress = self.log.progress(self.total, self.images)
        stopping = False
        while self.images < self.total and not stopping:
            before = self.images
            batch = self._step()
            now = {n for n, images in every.items() if _reached(images, before, self.images)}
            if self.images >= self.total:
                now |= every.keys()
            stopping = self._preemption.reached()
            grown = self._grow(before)
            # Whatever is saved is measured first, and reported before a kill can lose it.
            saving = stopping or grown or bool(now & {"save", "evaluate"})
            record = self._measure() if "evaluate" in now else None
            if saving or now & {"scalars", "watch"}:
                self._report(batch if "watch" in now else None, record)
            if "grid" in now:
                self._show()
            if saving:
                self._save(record)
        said = "Told to stop at" if stopping else "Done:"
        self.checkpoints.wait()
        self.log.status(f"{said} {self.images} images{'; saved' if stopping else ''}.")

    def _step(self) -> dict[str, Any]:
        """Plays the phases that are due, the first time after compiling them; the real batch."""
        drawn = next(self._stream)
        batch = {name: drawn[name] for name in self._family.item}
        step = self._compiled_step(due(self._family.phases, self.step, self._stage))
        self._state, metrics = step(self._state, {"real": batch}, self._key, self._frozen)
        # At most one step is under way while the next is sent off: rate, time left and SIGTERM are
        # of what was done, not of what waits.
        jax.block_until_ready(self._pending[-1:])
        self._pending.append(metrics)
        self.images += self._program.items
        self._progress.update(self.images)
        return batch

    def _compiled_step(self, names: tuple[str, ...]) -> Any:
        """The program that plays these phases; the last one of a stage starts off the next's."""
        if names not in self._compiled:
            if names in self._ahead:
                self._compiled[names] = self._ahead.pop(names).result()
            else:
                self._compiled[names] = _compile(self._program, names, self.log)
            self._progress.restart_clock()
            played = programs(self._family.phases, self._stage)
            if self._growing and not self._growing.done and not played.keys() - self._compiled:
                for following in programs(self._family.phases, self._stage + 1):
                    self._ahead[following] = self._pool.submit(
                        _compile, self._program, following, self.log
                    )
        return self._compiled[names]

    @property
    def _stage(self) -> int:
        return self._growing.stage if self._growing else 0

    def _grow(self, before: int) -> bool:
        """Goes on to the next stage if it is time."""
        if self._growing is None or self._growing.done:
            return False
        growth = self._growing.growth
        if _reached(growth.every_images, before, self.images):
            record = self._growing.measure(self._model())
            self._pending.append(record)
            self._progress.restart_clock()
        why = self._growing.over(self.images)
        if not why:
            return False
        old = self._state.extras
        moved = self._growing.move(self.images)
        new = {name: jax.device_put(value, old[name].sharding) for name, value in moved.items()}
        self._state = self._state.replace(extras={**old, **new})
        self.log.status(
            f"{self.images} images: {why}; on to {growth.resolutions[self._stage]} pixels."
        )
        return True

    def _model(self) -> generate.Model:
        """The averaged generator."""
        average, extras = whole(self._state.ema), self._state.extras
        variables = self._family.sampled(average, extras, self._frozen)
        return generate.Model(self._family, variables, self.config, self.step, self._samplers)

    def _report(self, watched: dict[str, Any] | None, record: dict[str, Any] | None) -> None:
        """Logs the means since the last report, what the watch sees, and what was measured."""
        values = _mean(self._pending) | {"images_skipped": self._stream.skipped}
        self._pending = []
        if watched:
            values |= self._watch.measure(self._state, watched, values)
        if record:
            values |= record["metrics"]
        self.log.scalars(self.images, values)
        losses = {name: value for name, value in values.items() if name.endswith("/loss")}
        self._progress.update(self.images, losses)
        self._watch.check(self.images, values, self._state)
        self.checkpoints.check()

    def _show(self) -> None:
        """Draws the family's ``grid`` from the averaged generator."""
        variables = self._model().variables

        def sample(draws):
            return self._samplers.sample(variables, draws)

        sheet = self._family.sheets["grid"](
            lambda truncation: sample, jax.random.key(SHOWN_SEED), self._request
        )
        path = self.log.grid(
            "grid",
            self.images,
            np.asarray(to_uint8(jnp.asarray(sheet.images))),
            sheet.columns,
            column_titles=sheet.column_titles,
            row_titles=sheet.row_titles,
        )
        self.log.status(f"{self.images} images: {path}")
        self._progress.restart_clock()

    def _measure(self) -> dict[str, Any]:
        """Evaluates the averaged generator."""
        assert self._evaluation
        record = self._evaluation(self._model())
        self.log.status(evaluate.table(record))
        self._progress.restart_clock()
        return record

    def _save(self, record: dict[str, Any] | None) -> None:
        check_finite(self.images, state=self._state)
        metrics = self._watch.memory()
        if record:
            metrics |= {"rank": evaluate.rank(record), **record["metrics"]}
        self.checkpoints.save(self.step, self._state, metrics)

    def farewell(self) -> str:
        """Where everything is, and what can be done next."""
        usual = "fvd2048_16f" if "clip" in self._family.item else "fid50k_full"
        known = evaluate.metric_names(self.config.data.source, self._family)
        metrics = "" if known else f" --metrics={usual}"
        return (
            f"Pictures: {self.workdir}/samples, numbers: {self.workdir}/metrics.jsonl (tensorboard "
            f"--logdir {self.workdir}).\n"
            f"  sample:   python -m ganjax.main --mode=sample --workdir={self.workdir}\n"
            f"  evaluate: python -m ganjax.main --mode=evaluate --workdir={self.workdir}{metrics}\n"
            f"  resume:   the same command again, or a longer run: --config.train.images=..."
        )

    def _greeting(self) -> str:
        family, platform = self._family, self._mesh.devices.flat[0].platform
        counts = ", ".join(f"{p} {family.parameter_count(p) / 1e6:.2f} M" for p in family.networks)
        return (
            f"{'Continuing' if self.images else 'Training'} {self.config.family} on "
            f"{self._source.name} in {self.workdir}\n"
            f"  data: {len(self._source)} items of {len(self._source.classes) or 'no'} classes\n"
            f"  parameters: {counts}; {self._program.items} images a step; "
            f"{self._mesh.size} {platform} device(s), {_memory(self._program.state)}\n"
            + "".join(f"  {line}\n" for line in self._decided)
            + f"  {self.images} of {self.total} images seen"
        )


def _note_data(file: pathlib.Path, source: Source) -> None:
    """Keeps what a run is trained on, and warns where that is not what it was."""
    now = {"name": source.name, "items": len(source), "fingerprint": source.fingerprint()}
    before = json.loads(file.read_text()) if file.is_file() else now
    if before["fingerprint"] != now["fingerprint"]:
        warnings.warn(
            f"The data is not what this run began with: {before['items']} items of "
            f"{before['name']!r} then, {len(source)} of {source.name!r} now. It goes on over "
            "these, in an order of their own.",
            stacklevel=2,
        )
    write_atomically(file, json.dumps(now, indent=2).encode())


def steps_for(images: int, per_step: int) -> int:
    """Steps that see at least so many images."""
    return -(-images // per_step)


def _compile(program: Program, names: tuple[str, ...], log: Logger) -> Any:
    began = time.monotonic()
    log.status(f"Compiling the step that plays {', '.join(names)} ...")
    compiled = program.lower(names).compile()
    log.status(f"Compiled in {time.monotonic() - began:.0f} s.")
    return compiled


def _reached(every: int, before: int, images: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, images]; 0: never."""
    return every > 0 and images // every > before // every


def _mean(pending: list[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each metric over the steps that had it."""
    values: dict[str, list[float]] = {}
    for metrics in jax.device_get(pending):
        for name, value in metrics.items():
            values.setdefault(name, []).append(float(value))
    return {name: float(np.mean(numbers)) for name, numbers in values.items()}


def _memory(state: Any) -> str:
    """What a placed state takes."""
    leaves = jax.tree.leaves(state)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 2**20
    each = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    )
    return f"each with {each / 2**20:.2f} of the state's {whole:.2f} MiB"


def _kept(workdir: pathlib.Path) -> str:
    steps = ", ".join(map(str, checkpoint.steps(workdir)))
    return (
        f"Checkpoints from before stay in {workdir / 'checkpoints'}: {steps or 'none yet'}. The "
        "same command goes on from the newest; move it away to go on from an earlier one."
    )
