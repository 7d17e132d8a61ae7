"""The directory of a run: the claim that keeps a second run out of it, and whole files."""

import contextlib
import datetime
import os
import pathlib
import shutil
import socket
import warnings
from collections.abc import Iterator

import jax

from ganjax.config import ConfigError
from ganjax.parallel.agreement import agreed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


def local(workdir: str | os.PathLike) -> pathlib.Path:
    """The absolute path of a workdir.

    Raises:
      ConfigError: it is an address.
    """
    if "://" in os.fspath(workdir):
        raise ConfigError(
            f"--workdir={workdir} is an address; a directory is wanted. Mount the bucket (gcsfuse) "
            "and give the path of the mount."
        )
    return pathlib.Path(workdir).expanduser().absolute()


@contextlib.contextmanager
def claim(workdir: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Make a workdir, and keep other runs out of it while the context lasts.

    Process 0 locks the file ``.lock`` in it; every process calls this. The operating system
    unlocks it when the process ends, however it ends, so that a killed run leaves no stale lock.
    Where the file system has no locks a warning says so.

    Raises:
      ConfigError: on every process: it cannot be written, or another run has it.
    """
    path = local(workdir)
    with contextlib.ExitStack() as stack:
        problem = agreed(_take(path, stack) if jax.process_index() == 0 else None)
        if problem is not None:
            raise ConfigError(problem)
        yield path


@contextlib.contextmanager
def partial(file: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write a file to, which takes its name when the context ends without an error.

    So the name never stands for half of it, even after a power cut. An error leaves nothing.
    """
    path = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield path
        with open(path, "rb+") as written:
            os.fsync(written.fileno())
        path.replace(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def appearing(path: str | os.PathLike, flag: str) -> Iterator[pathlib.Path]:
    """A directory to fill, which has its name when the context ends well, and else is removed.

    Args:
      path: not there yet, or an empty directory.
      flag: that gave it, for the error.

    Raises:
      ConfigError: something is there.
    """
    target = local(path)

    def check() -> None:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(
                f"{target} is there already and not empty. Give {flag}=... a new directory."
            )

    check()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        check()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_atomically(file: pathlib.Path, data: bytes) -> None:
    """Write a file, whole or not at all: see :func:`partial`."""
    with partial(file) as path:
        path.write_bytes(data)


def _take(path: pathlib.Path, stack: contextlib.ExitStack) -> str | None:
    """Lock a workdir until the stack unwinds; why that cannot be, or None."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(open(path / LOCK, "a+b", buffering=0))
        holder = _lock(file)
        if holder is not None:
            return (
                f"The workdir {path} is in use by {holder}; two runs would spoil each other's "
                "checkpoints. Wait for that one or stop it, or give --workdir=... a directory of "
                "its own."
            )
        now = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
    except OSError as error:
        return (
            f"The workdir {path} cannot be written ({error.strerror}). Give --workdir=... a "
            "directory that you may write and whose disk has room."
        )
    return None


def _lock(file) -> str | None:
    """Lock a file; who has it already, or None."""
    try:
        if fcntl is None:
            raise OSError("this system has no file locks")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().decode(errors="replace").strip() or "another process"
    except OSError as error:
        warnings.warn(
            f"{file.name} cannot be locked ({error.strerror or error}): nothing keeps another run "
            "out of this workdir. Start one run in it at a time.",
            stacklevel=2,
        )
    return None
