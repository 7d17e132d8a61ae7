"""Training: the host's loop. Progress is counted in images of the real stream."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ganjax import checkpoint
from ganjax.adversarial.phases import due
from ganjax.data.pipeline import Stream
from ganjax.data.sources import open_source, read_options
from ganjax.data.transforms import Transform
from ganjax.family import Family, Request, build
from ganjax.layers.images import to_uint8
from ganjax.logs import Logger
from ganjax.parallel.mesh import batch_sharding, make_mesh, replicated
from ganjax.parallel.preemption import Preemption
from ganjax.program import Program, assemble

SHEET_SEED = 1  # of the pictures that training shows: the same latents throughout


class Diverged(RuntimeError):
    """A loss became NaN or infinite; the message names it and the last good checkpoint."""


def train(config: ConfigDict, workdir: str | pathlib.Path) -> pathlib.Path:
    """Train until ``config.train.images``, continuing whatever the workdir holds.

    Returns:
      The workdir.

    Raises:
      ValueError: a config that cannot be; raised before anything compiles.
      FileNotFoundError: no data; says what to prepare and how.
      Diverged: a loss is not finite.
    """
    # What can be wrong is found before anything compiles: data, workdir, batch, mesh.
    options = read_options(config.data)
    source = open_source(config.data)
    workdir = checkpoint.prepare(workdir, config)
    mesh = make_mesh(config.mesh)
    family = build(config, mesh.devices.flat[0].platform)
    program = assemble(family, mesh)
    total = steps_for(config.train.images, program.items) * program.items

    with (
        checkpoint.Checkpoints(workdir, config.checkpoint.keep, config=config) as checkpoints,
        Preemption() as preemption,
    ):
        # Continue, or begin.
        key = jax.random.key(config.seed)
        if checkpoints.latest_step() is None:
            state = program.place(family.init(key))
        else:
            state, _ = checkpoints.restore(program.state)
        images = int(state.items)
        with Logger(workdir, images) as log:
            if images >= total:
                log.status(f"{workdir} is done: {images} of {total} images. {_next(workdir)}")
                return workdir
            log.status(_greeting(config, family, program, mesh, workdir, images, total))

            stream = Stream(
                source,
                Transform(options.resolution, options.channels, options.flip),
                shape=program.batches["real"]["image"].shape[:3],
                seed=config.seed,
                sharding=batch_sharding(mesh),
                start_items=images,
                threads=options.threads,
                prefetch=options.prefetch,
                max_broken=options.max_broken,
            )
            show = Pictures(family, mesh, Request(names=_names(source), rows=config.log.grid_rows))
            progress = log.progress(total, images)
            compiled: dict[tuple[str, ...], Any] = {}
            pending: list[Mapping[str, Any]] = []
            try:
                while images < total:
                    # One step; the first of each kind compiles its program.
                    batch = {"real": next(stream)}
                    names = due(family.phases, images // program.items)
                    if names not in compiled:
                        compiled[names] = _compile(program, names, log)
                        progress.restart_clock()
                    state, metrics = compiled[names](state, batch, key)
                    before, images = images, images + program.items
                    pending.append(metrics)

                    # Report, and stop at the first loss that is no number.
                    if _reached(config.log.scalars_every_images, before, images, total):
                        values = _mean(pending)
                        _check_finite(values, images, checkpoints)
                        log.scalars(images, values | {"images_skipped": stream.skipped})
                        losses = {k: v for k, v in values.items() if k.endswith("/loss")}
                        progress.update(images, losses)
                        pending = []
                        checkpoints.check()
                    else:
                        progress.update(images)

                    # Show samples of the averaged generator.
                    if _reached(config.log.grid_every_images, before, images, total):
                        sheet = show(state.ema)
                        path = log.grid(
                            "grid",
                            images,
                            np.asarray(to_uint8(jnp.asarray(sheet.images))),
                            sheet.columns,
                            column_titles=sheet.column_titles,
                            row_titles=sheet.row_titles,
                        )
                        log.status(f"{images} images: {path}")
                        progress.restart_clock()

                    # Save; asked to stop, save and go.
                    stopping = preemption.reached(images // program.items)
                    if stopping or _reached(config.checkpoint.every_images, before, images, total):
                        checkpoints.save(images // program.items, state)
                    if stopping:
                        log.status(f"Told to stop at {images} images; saved. {_next(workdir)}")
                        return workdir
            finally:
                stream.close()
            checkpoints.wait()
            log.status(f"Done: {images} images. {_next(workdir)}")
    return workdir


class Pictures:
    """The family's ``grid`` from the averaged generator, with the same latents every time."""

    def __init__(self, family: Family, mesh: Any, request: Request):
        self._family, self._request = family, request
        self._sample = jax.jit(family.sample, out_shardings=replicated(mesh))

    def __call__(self, variables: Any) -> Any:
        def sample(draws):
            return self._sample(variables, draws)

        return self._family.sheets["grid"](sample, jax.random.key(SHEET_SEED), self._request)


def steps_for(images: int, per_step: int) -> int:
    """Steps that see at least so many images."""
    return -(-images // per_step)


def _compile(program: Program, names: tuple[str, ...], log: Logger) -> Any:
    began = time.monotonic()
    log.status(f"Compiling the step that plays {', '.join(names)} ...")
    compiled = program.step.lower(program.state, program.batches, program.key, due=names).compile()
    log.status(f"Compiled in {time.monotonic() - began:.0f} s.")
    return compiled


def _reached(every: int, before: int, images: int, total: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, images], or the run ends."""
    return images >= total or (every > 0 and images // every > before // every)


def _mean(pending: list[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each metric over the steps that had it."""
    values: dict[str, list[float]] = {}
    for metrics in jax.device_get(pending):
        for name, value in metrics.items():
            values.setdefault(name, []).append(float(value))
    return {name: float(np.mean(numbers)) for name, numbers in values.items()}


def _check_finite(values: Mapping[str, float], images: int, checkpoints: Any) -> None:
    for name, value in values.items():
        if not np.isfinite(value):
            step = checkpoints.latest_step()
            kept = f"the checkpoint of step {step} stays" if step else "there is no checkpoint yet"
            raise Diverged(
                f"{name} is {value} at {images} images; {kept}. Lower config.optimizer's learning "
                "rates, or raise config.train.batch."
            )


def _names(source: Any) -> tuple[str, ...]:
    return tuple(getattr(source, "classes", ()))


def _greeting(config, family, program, mesh, workdir, images, total) -> str:
    counts = ", ".join(f"{p} {family.parameter_count(p) / 1e6:.2f} M" for p in family.networks)
    devices = mesh.devices.flat
    return (
        f"{'Continuing' if images else 'Training'} {config.family} on {config.data.source} in "
        f"{workdir}\n  parameters: {counts}; {program.items} images a step; "
        f"{mesh.size} {devices[0].platform} device(s)\n  {images} of {total} images seen"
    )


def _next(workdir: pathlib.Path) -> str:
    return (
        f"Pictures: {workdir}/samples, numbers: {workdir}/metrics.jsonl (tensorboard --logdir "
        f"{workdir}).\n  sample:   python -m ganjax.main --mode=sample --workdir={workdir}\n"
        f"  evaluate: python -m ganjax.main --mode=evaluate --workdir={workdir}\n"
        f"  resume:   the same command again, or a longer run: --config.train.images=..."
    )
