"""Is anything lost when a run is killed? Kills it with SIGKILL again and again, and compares.

    python benchmarks/kill_resume.py                # 20 kills, some minutes on two cores
    python benchmarks/kill_resume.py --kills=3 --seed=1
    python benchmarks/kill_resume.py --config=configs/biggan.py:shapes --config.train.images=6400

Starts ``python -m ganjax.main`` as a person would, kills it, and starts the same command again,
until it ends by itself; begins anew in another directory until enough kills have landed. Every
other kill comes at a moment drawn uniformly over the life of a run; those between wait from there
for it to save, to step, to end or to compile. Each run is compared with one that nobody killed:

- every array of every checkpoint kept, bit by bit; no checkpoint damaged;
- ``metrics.jsonl``: the same lines with the same numbers, images strictly increasing;
- the pictures, byte by byte;
- each start goes on from the newest checkpoint that was complete when the one before was killed.

Ends with status 1 if anything was lost. Without ``--config`` a BigGAN of two channels runs on the
built-in digits and saves at every second step.
"""

import dataclasses
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import tqdm
from absl import flags, logging

from ganjax import environment

environment.prepare()

import jax  # noqa: E402

from ganjax import checkpoint, family, logs  # noqa: E402
from ganjax import config as configs  # noqa: E402

SMALL = {
    "data.threads": "0",
    "data.prefetch": "1",
    "model.g_channels": "2",
    "model.d_channels": "2",
    "model.latent_dim": "8",
    "model.shared_dim": "4",
    "train.batch": "8",
    "train.images": "384",  # 24 steps
    "ema.start_step": "2",
    "evaluate.every_images": "0",
    "log.scalars_every_images": "48",  # not at every checkpoint, and between them
    "log.grid_every_images": "160",
    "log.grid_rows": "2",
    "watch.every_images": "160",
    "checkpoint.every_images": "32",  # every second step
}
AIMS = ("saving", "stepping", "ending", "compiling")
_SEEN = re.compile(r"(\d+) of \d+ images seen")


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
      after: seconds since the process began.
      aim: from then on, wait until it does this; None: at once.
      within: seconds after that was seen.
    """

    after: float
    aim: str | None
    within: float


@dataclasses.dataclass(frozen=True)
class Kill:
    """Where one kill landed.

    Attributes:
      after: seconds since the process began.
      doing: the last that it had said, or was seen to be doing.
      step: of the newest complete checkpoint; 0 for none.
    """

    after: float
    doing: str
    step: int


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
      lost: a line for everything that a killed run has not, or has otherwise.
    """

    kills: tuple[Kill, ...]
    runs: int
    lost: tuple[str, ...]

    def __str__(self) -> str:
        landed: dict[str, int] = {}
        for kill in self.kills:
            landed[kill.doing] = landed.get(kill.doing, 0) + 1
        where = ", ".join(f"{count} {doing}" for doing, count in sorted(landed.items()))
        lines = [f"killed while: {where}" if where else "no kill", *self.lost]
        lines.append(f"{len(self.kills)} kills, {len(self.lost)} lost ({self.runs} runs)")
        return "\n".join(lines)


def kill_resume(
    arguments: Sequence[str], kills: int, seed: int, folder: pathlib.Path, show: bool = True
) -> Result:
    """Run, kill, run again, compare.

    Args:
      arguments: of ``ganjax.main``, without ``--workdir``.
      kills: at least so many.
      seed: of the moments.
      folder: exists; the runs and a cache of compiled programs are made in it.
      show: say where each kill lands.

    Raises:
      RuntimeError: the run fails without being killed.
    """
    random_ = random.Random(seed)
    bar = tqdm.tqdm(total=kills, unit=" kills", disable=not show, file=sys.stderr)

    def say(text: str) -> None:
        if show:
            tqdm.tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    whole = folder / "whole"
    say("A run that is not killed, and compiles ...")
    seconds, said, code = _start(arguments, whole, folder)
    if code:
        raise RuntimeError(f"The run fails without being killed, with status {code}:\n{said}")
    # The others find the step compiled.
    seconds -= sum(map(int, re.findall(r"Compiled in (\d+) s", said)))
    say(f"It took {seconds:.1f} s without compiling the step.")
    per_step = _images(whole) // checkpoint.steps(whole)[-1]
    lost: list[str] = []

    landed: list[Kill] = []
    runs = 0
    while len(landed) < kills:
        runs += 1
        workdir = folder / f"killed-{runs}"
        step, code = 0, -signal.SIGKILL
        while code == -signal.SIGKILL:
            moment = None
            if len(landed) < kills:
                number = len(landed)
                aim = AIMS[number // 2 % len(AIMS)] if number % 2 else None
                moment = Moment(random_.uniform(0, seconds), aim, random_.uniform(0, 0.3))
            after, said, code = _start(arguments, workdir, folder, moment)
            began = _SEEN.search(said)
            if began and int(began[1]) != step * per_step:
                lost.append(
                    f"run {runs}: went on from {began[1]} images, and a complete checkpoint of "
                    f"{step * per_step} was there"
                )
            if code == -signal.SIGKILL:
                step = max(checkpoint.steps(workdir), default=0)
                landed.append(Kill(after, _doing(said, workdir), step))
                bar.update(1)
                kill = landed[-1]
                say(
                    f"kill {len(landed):3d}: run {runs}, after {kill.after:5.1f} s, "
                    f"{kill.doing}; newest checkpoint {kill.step}"
                )
            elif code:
                lost.append(f"run {runs}: ended with status {code}: {said[-500:]}")
        if not code:
            lost += [f"run {runs}: {what}" for what in differences(whole, workdir)]
            shutil.rmtree(workdir)
    bar.close()
    return Result(tuple(landed), runs, tuple(lost))


def differences(whole: pathlib.Path, killed: pathlib.Path) -> list[str]:
    """What two finished runs do not have in common."""
    found = []
    checkpoints = checkpoint.steps(whole), checkpoint.steps(killed)
    if checkpoints[0] != checkpoints[1]:
        found.append(f"checkpoints of steps {checkpoints[1]}, and {checkpoints[0]} are wanted")
    damaged = [path.name for path in (killed / "checkpoints").glob("damaged-*")]
    if damaged:
        found.append(f"damaged checkpoints: {', '.join(damaged)}")
    for step in sorted(set(checkpoints[0]) & set(checkpoints[1])):
        wanted, got = _arrays(whole, step), _arrays(killed, step)
        different = [name for name in wanted if not _same(wanted[name], got[name])]
        if different:
            found.append(
                f"checkpoint {step} differs in {len(different)} arrays, first {different[0]}"
            )
    lines = _lines(whole), _lines(killed)
    images = [line["images"] for line in lines[1]]
    if any(after <= before for before, after in itertools.pairwise(images)):
        found.append("metrics.jsonl: images do not increase")
    for line in lines[0]:
        if line not in lines[1]:
            found.append(f"metrics.jsonl: the line of {line['images']} images is lost or differs")
    if len(lines[1]) != len(lines[0]):
        found.append(f"metrics.jsonl: {len(lines[1])} lines, and {len(lines[0])} are wanted")
    if (killed / logs.METRICS).read_bytes().count(b"\n") != len(lines[1]):
        found.append("metrics.jsonl: a line is cut short")
    for picture in sorted((whole / logs.SAMPLES).glob("*.png")):
        other = killed / logs.SAMPLES / picture.name
        if not other.is_file() or other.read_bytes() != picture.read_bytes():
            found.append(f"{picture.name} is missing or differs")
    return found


def _start(
    arguments: Sequence[str],
    workdir: pathlib.Path,
    folder: pathlib.Path,
    moment: Moment | None = None,
) -> tuple[float, str, int]:
    """Run the command, and kill it at a moment unless it ends before; seconds, words, status."""
    said = folder / "said.txt"
    environ = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    } | os.environ
    began = time.monotonic()
    with open(said, "wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "ganjax.main", *arguments, f"--workdir={workdir}"],
            env=environ,
            stdout=stream,
            stderr=stream,
        )
        try:
            if moment:
                _wait_for(moment, process, workdir, said)
            else:
                process.wait()
        finally:
            process.kill()
            process.wait()
    return time.monotonic() - began, said.read_text(errors="replace"), process.returncode


def _wait_for(
    moment: Moment, process: subprocess.Popen, workdir: pathlib.Path, said: pathlib.Path
) -> None:
    """Return at the moment, or when the process has ended."""
    try:
        process.wait(moment.after)
    except subprocess.TimeoutExpired:
        if moment.aim is None:
            return
        while process.poll() is None:
            doing = _doing(said.read_text(errors="replace"), workdir)
            # Before the first checkpoint there is nothing to lose yet.
            if doing == moment.aim and (checkpoint.steps(workdir) or doing == "compiling"):
                time.sleep(moment.within)
                return
            time.sleep(0.005)


def _doing(said: str, workdir: pathlib.Path) -> str:
    if list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")):
        return "saving"
    for words, doing in (
        ("Done:", "ending"),
        ("Compiled in", "stepping"),
        ("Compiling", "compiling"),
    ):
        if words in said:
            return doing
    return "starting"


def _images(workdir: pathlib.Path) -> int:
    return _lines(workdir)[-1]["images"]


def _lines(workdir: pathlib.Path) -> list[dict]:
    lines = logs.read_metrics(workdir)
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def _arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    config = checkpoint.read_config(workdir)
    wanted = family.build(config, jax.devices()[0].platform).abstract_state()
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        state, _ = checkpoints.restore(wanted, step)
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and one.tobytes() == other.tobytes()


def _main(overrides: dict[str, str]) -> None:
    logging.set_verbosity(logging.WARNING)
    path = CONFIG.value or "configs/biggan.py"
    chosen = overrides if CONFIG.value else SMALL | overrides
    configs.override(configs.load(path), chosen)  # a typo is answered here
    arguments = [f"--config={path}", *(f"--config.{n}={v}" for n, v in chosen.items())]
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as folder:
        result = kill_resume(arguments, KILLS.value, SEED.value, pathlib.Path(folder))
    print(result)
    sys.exit(1 if result.lost else 0)


if __name__ == "__main__":
    KILLS = flags.DEFINE_integer("kills", 20, "How many, at least.", lower_bound=1)
    SEED = flags.DEFINE_integer("seed", 0, "Of the moments of the kills.")
    CONFIG = flags.DEFINE_string("config", None, "Config file; a small BigGAN without it.")
    configs.run(_main)
