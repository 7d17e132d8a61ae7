"""Checkpoints of a run: whole, asynchronous, atomic, checked, and placed on any mesh.

A workdir holds ``config.json`` and ``checkpoints/<step>/{state,config,metrics,checksums.json}``.
Orbax writes a step under a temporary name and renames it when it is complete, so that a process
killed at any moment leaves the previous ones. Just before the rename we add checksums, which Orbax
does not keep: a byte that changes later would else be restored as another number.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from ganjax import config as configs
from ganjax.parallel.agreement import agreed
from ganjax.workdir import local, write_atomically

CONFIG = "config.json"
CHECKSUMS = "checksums.json"
DELETED = "deleted"  # beside the steps
RANK = ("rank", "min")  # the metric of a measured checkpoint by which runs choose the best


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says which, why, and what to do."""


def prepare(workdir: str | os.PathLike, config: ConfigDict) -> pathlib.Path:
    """Keep the config in a claimed workdir; call it before anything compiles.

    Raises:
      ConfigError: the workdir holds checkpoints of another config.
    """
    path = local(workdir)
    if steps(path):
        try:
            configs.check_resume(read_config(path), config, path)
        except FileNotFoundError:
            warnings.warn(
                f"{path} has checkpoints but no {CONFIG}; the config given is taken for theirs.",
                stacklevel=2,
            )
    if jax.process_index() == 0:
        write_atomically(path / CONFIG, configs.to_json(config).encode())
    return path


def read_config(workdir: str | os.PathLike) -> ConfigDict:
    """The config that a workdir was last run with.

    Raises:
      FileNotFoundError: there is none.
    """
    file = local(workdir) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist, so {workdir} is not the directory of a run. Give --workdir "
            "the directory that a training run printed."
        )
    try:
        return configs.from_json(file.read_text())
    except configs.ConfigError as error:
        raise configs.ConfigError(
            f"{file} is damaged: {error} Each checkpoint holds a copy: "
            f"{file.parent}/checkpoints/<step>/config/metadata."
        ) from error


def begun(workdir: str | os.PathLike) -> ConfigDict | None:
    """The config of the run whose checkpoints a workdir holds; None where it holds none."""
    there = steps(workdir) and (local(workdir) / CONFIG).is_file()
    return read_config(workdir) if there else None


def steps(workdir: str | os.PathLike) -> list[int]:
    """The steps of the complete checkpoints in a workdir, ascending."""
    directory = local(workdir) / "checkpoints"
    names = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


class Checkpoints:
    """The checkpoints of one run. Every process of a run calls every method.

    Use it as a context manager, or call :meth:`close`: a process that ends during a write loses
    that checkpoint (and none before it).

    Args:
      workdir: of the run; the same directory for all hosts.
      keep: the newest of them that are kept.
      best: ``("fid", "min")`` also keeps the one with the least ``metrics["fid"]``.
      config: kept inside each checkpoint.
      read_only: never writes or tidies up: for sampling from a run that is still going on.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        keep: int = 3,
        best: tuple[str, str] | None = None,
        config: ConfigDict | None = None,
        read_only: bool = False,
    ):
        if keep < 1:
            raise ValueError(f"config.checkpoint.keep is {keep}; at least 1 is wanted.")
        if best is not None and best[1] not in ("min", "max"):
            raise ValueError(f"The best of {best[0]!r} is {best[1]!r}; 'min' or 'max' is wanted.")
        self.directory = local(workdir) / "checkpoints"
        self.damaged: list[str] = []  # directories that could not be restored, newest first
        self._best = best
        self._read_only = read_only
        self._config = None if config is None else json.loads(configs.to_json(config))
        self._writing: int | None = None
        policies = ocp.checkpoint_managers
        self._manager = _Manager(
            self.directory,
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                best_fn=self._score,
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        policies.BestN(n=1, get_metric_fn=self._score),
                    ]
                ),
                # Deleting is slow; a process killed in its midst would leave half a step.
                todelete_subdir=None if read_only else DELETED,
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                save_root_metadata=not read_only,
                async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

        self._empty_deleted()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.close()
        except CheckpointError:
            if error is None:  # else the first error is the one to see
                raise

    def latest_step(self) -> int | None:
        """The newest step, one that is being written included."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the best metric, or None if none was measured."""
        scored = [(self._score(self.metrics(step)), step) for step in self._manager.all_steps()]
        score, step = max(scored, default=(-math.inf, None))
        return step if score > -math.inf else None

    def metrics(self, step: int) -> dict[str, float]:
        """What was measured at a step."""
        return dict(self._manager.metrics(step) or {})

    def save(
        self,
        step: int,
        state: Any,
        metrics: Mapping[str, Any] | None = None,
        wait: bool = False,
    ) -> bool:
        """Copy the state off the devices and write it in the background.

        The state may be donated or changed as soon as this returns. A step that is there already
        is left as it is.

        Args:
          step: its number.
          state: a pytree of arrays.
          metrics: for :meth:`best_step`.
          wait: return when it is complete.

        Returns:
          Whether it was written.

        Raises:
          CheckpointError: this one or the one before could not be written.
        """
        if self._read_only:
            raise ValueError(f"{self.directory} was opened with read_only=True; do not save there.")
        self.wait()
        if step in self._manager.all_steps():
            return False
        items: dict[str, Any] = {"state": ocp.args.PyTreeSave(_nested(_leaves(state)))}
        if self._config is not None:
            items["config"] = ocp.args.JsonSave(self._config)
        self._writing = step
        measured = {name: float(value) for name, value in (metrics or {}).items()}
        with self._clear_errors():
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=measured, force=True)
        if wait:
            self.wait()
        return True

    def check(self) -> None:
        """Raise the CheckpointError of a background write that has failed; cheap."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Until the checkpoint that is being written is complete.

        Raises:
          CheckpointError: it could not be written.
        """
        with self._clear_errors():
            self._manager.wait_until_finished()
        self._empty_deleted()

    def close(self) -> None:
        """Wait and release the threads."""
        self.wait()
        self._manager.close()

    def restore(self, state: Any, step: int | None = None) -> tuple[Any, int]:
        """Read a state, each array to the place that it is wanted at.

        Args:
          state: the pytree wanted: ShapeDtypeStructs, or arrays, whose ``sharding`` says where
            each array goes (this process's first device without one). It may lack branches of
            the stored state, such as everything but ``ema``; these are then not read.
          step: which; the newest that is whole without it. A damaged one is then set aside under
            another name with a warning, and the one before it is taken.

        Returns:
          The state, and its step.

        Raises:
          CheckpointError: there is none, it is damaged, or it is of another config: parameter,
            shape got, shape wanted.
        """
        self.wait()
        for candidate in [step] if step is not None else self._manager.all_steps()[::-1]:
            problem, restored = self._try_restore(state, candidate)
            if problem is None:
                return restored, candidate
            if step is not None:
                raise CheckpointError(
                    f"The checkpoint {self.directory / str(step)} is damaged: {problem}. "
                    f"Choose another step; there are {self._listed()}."
                )
            self._set_aside(candidate, problem)
        if self.damaged:
            raise CheckpointError(
                f"No checkpoint in {self.directory} is whole: {', '.join(self.damaged)} are "
                "damaged. Give --workdir=... a new directory to start again."
            )
        raise CheckpointError(f"There is no checkpoint in {self.directory}.")

    def _try_restore(self, state: Any, step: int) -> tuple[str | None, Any]:
        """What is wrong with the files of a step, or None and its state."""
        if step not in self._manager.all_steps():
            raise CheckpointError(
                f"There is no checkpoint of step {step} in {self.directory}; there are "
                f"{self._listed()}."
            )
        problem = agreed(self._damage(step))
        if problem is not None:
            return problem, None
        try:
            stored = _leaves(self._manager.item_metadata(step)["state"].tree)
        except Exception as error:  # Orbax and TensorStore have no error of their own
            return f"its metadata cannot be read ({_reason(error)})", None
        leaves = {name: _with_sharding(leaf) for name, leaf in _leaves(state).items()}
        self._check_same(stored, leaves, step)
        wanted = _nested(leaves)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        wanted,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
                        partial_restore=True,
                    )
                ),
            )["state"]
        except Exception as error:
            if jax.process_count() > 1:  # the others may have succeeded
                raise CheckpointError(
                    f"The checkpoint {self.directory / str(step)} cannot be read: "
                    f"{_reason(error)}. Move it away to continue from the one before it."
                ) from error
            return f"it cannot be read ({_reason(error)})", None
        found = _leaves(restored)
        return None, jax.tree.unflatten(jax.tree.structure(state), [found[n] for n in leaves])

    def _check_same(self, there: dict[str, Any], here: dict[str, Any], step: int) -> None:
        """Raise unless the checkpoint holds every array wanted, in its shape and dtype."""
        what = f"The checkpoint {self.directory / str(step)} is of another config: "
        advice = " Set the config back to the run's own (config.json), or give a new --workdir."
        for name, leaf in here.items():
            if name not in there:
                raise CheckpointError(
                    f"{what}it has no {name!r}, which is wanted of shape {_shape(leaf)}.{advice}"
                )
            if _shape(there[name]) != _shape(leaf):
                raise CheckpointError(
                    f"{what}{name!r} has shape {_shape(there[name])} in it, and shape "
                    f"{_shape(leaf)} is wanted.{advice}"
                )
            if hasattr(leaf, "dtype") and there[name].dtype != leaf.dtype:
                raise CheckpointError(
                    f"{what}{name!r} is {there[name].dtype} in it, and {leaf.dtype} is "
                    f"wanted.{advice}"
                )
        branches = {name.rpartition("/")[0] for name in here}
        for name in there.keys() - here.keys():
            if name.rpartition("/")[0] in branches:
                raise CheckpointError(
                    f"{what}it has {name!r} of shape {_shape(there[name])}, which is not "
                    f"wanted.{advice}"
                )

    def _seal(self) -> None:
        """Checksum the items of a step just before its rename (in the writing thread)."""
        if jax.process_index() == 0:
            for directory in self._unfinished(self._writing):
                sums = json.dumps(_checksums(directory), indent=1)
                write_atomically(directory / CHECKSUMS, sums.encode())

    def _unfinished(self, step: int | None) -> Iterator[pathlib.Path]:
        return self.directory.glob(f"{step}.orbax-checkpoint-tmp*")

    def _damage(self, step: int) -> str | None:
        """What the checksums say is wrong with a step; process 0 looks for all."""
        if jax.process_index() != 0:
            return None
        directory = self.directory / str(step)
        try:
            wanted = json.loads((directory / CHECKSUMS).read_text())
        except FileNotFoundError:
            return f"{CHECKSUMS} is missing"
        except (OSError, ValueError) as error:
            return f"{CHECKSUMS} cannot be read ({error})"
        for name, (size, checksum) in wanted.items():
            file = directory / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes, and {size} were written"
            if _checksum(file) != checksum:
                return f"the bytes of {name} are not those that were written"
        return None

    def _set_aside(self, step: int, problem: str) -> None:
        """Out of the way, so that the run can write that step again; but lose nothing."""
        directory = aside = self.directory / str(step)
        if jax.process_index() == 0 and not self._read_only:
            number = 1
            while aside.exists():
                aside = self.directory / f"damaged-{step}-{number}"
                number += 1
            directory.rename(aside)
        self.damaged.append(str(aside))
        warnings.warn(
            f"The checkpoint {directory} is damaged: {problem}. It is kept as {aside.name}, and "
            f"the one before it is taken ({len(self.damaged)} damaged so far).",
            stacklevel=3,
        )
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("ganjax: damaged checkpoint set aside")
        if not self._read_only:
            self._manager.reload()

    def _empty_deleted(self) -> None:
        if jax.process_index() == 0 and not self._read_only:
            shutil.rmtree(self.directory / DELETED, ignore_errors=True)

    def _listed(self) -> str:
        return ", ".join(map(str, self._manager.all_steps())) or "none"

    def _score(self, metrics: Mapping[str, float] | None) -> float:
        """Larger is better; a step that was not measured is worse than any that was."""
        if self._best is None:
            return -math.inf
        name, mode = self._best
        value = float((metrics or {}).get(name, math.nan))
        if not math.isfinite(value):
            return -math.inf
        return value if mode == "max" else -value

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore have no error of their own
            step, self._writing = self._writing, None
            free = shutil.disk_usage(self.directory).free / 2**20  # before the rest is deleted
            if jax.process_index() == 0:
                for partial in self._unfinished(step):
                    shutil.rmtree(partial, ignore_errors=True)
            self._manager.reload()
            raise CheckpointError(
                f"The checkpoint {self.directory / str(step)} could not be written: "
                f"{_reason(error)} ({free:,.0f} MiB are free). Those of steps "
                f"{', '.join(map(str, steps(self.directory.parent))) or 'none'} are whole. Make "
                "room or set config.checkpoint.keep lower, then run the same command to continue."
            ) from error


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """No: Orbax would ask JAX, for its log, by other numbers than `Preemption` does."""
        del step
        return False


def _reason(error: BaseException) -> str:
    """TensorStore buries the system's answer at the end of a long line."""
    text = str(error).strip()
    code = re.search(r"os_error_code='(\d+)'", text)
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:300]


def _checksum(file: pathlib.Path) -> int:
    value = 0
    with open(file, "rb") as stream:
        while block := stream.read(2**22):
            value = zlib.crc32(block, value)
    return value


def _checksums(directory: pathlib.Path) -> dict[str, tuple[int, int]]:
    """(bytes, CRC-32) of each file of each item, by its path in the directory."""
    files = sorted(file for file in directory.glob("*/**/*") if file.is_file())
    return {str(f.relative_to(directory)): (f.stat().st_size, _checksum(f)) for f in files}


def _with_sharding(leaf: Any) -> Any:
    if not hasattr(leaf, "dtype"):
        return leaf
    sharding = getattr(leaf, "sharding", None)
    sharding = sharding or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _leaves(tree: Any) -> dict[str, Any]:
    """Each leaf by its path, in the order of the tree: ``players/g/params/linear/kernel``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored: plain dicts, so that a checkpoint outlives the classes of its state."""
    return unflatten_dict(dict(leaves), sep="/")


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(getattr(leaf, "shape", ()))
