import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from ganjax import workdir as workdirs
from ganjax.config import ConfigError
from ganjax.workdir import claim, write_atomically
from tests import processes

HOLD = """
import sys, time
from ganjax.workdir import claim
with claim(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_one_run_at_a_time(tmp_path):
    with claim(tmp_path / "new" / "run") as path:
        assert path == tmp_path / "new" / "run"
        words = f"in use by process {os.getpid()} on {socket.gethostname()} since .*--workdir"
        with pytest.raises(ConfigError, match=words), claim(path):
            pass
    with claim(path):
        pass


def test_a_killed_run_leaves_no_lock(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "mine\n"
        with pytest.raises(ConfigError, match=f"in use by process {holder.pid} "), claim(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with claim(tmp_path):
            pass


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workdirs.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match=r"\.lock cannot be locked \(No locks available\)"):
        with claim(tmp_path):
            pass


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/run cannot be written \(Not a directory\)"):
        with claim(tmp_path / "file" / "run"):
            pass


def test_an_address_is_not_a_workdir():
    with pytest.raises(ConfigError, match="gs://bucket/run is an address.*Mount"):
        with claim("gs://bucket/run"):
            pass


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"1")

    def refuse(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workdirs.os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a", b"2")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"1"


def test_all_processes_give_up_together(tmp_path):
    with claim(tmp_path):
        said = processes.run("tests.workdir_test:try_to_claim", str(tmp_path), devices=1)
    assert all(f"in use by process {os.getpid()} " in text for text in said)


def try_to_claim(path):
    """In each process."""
    with pytest.raises(ConfigError) as error, claim(path):
        pass
    print(error.value)
