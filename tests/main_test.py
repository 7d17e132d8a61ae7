"""The command line as a person meets it, above all when something goes wrong."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import av
import jax
import pytest

from ganjax import checkpoint, errors
from ganjax.parallel.mesh import make_mesh
from ganjax.workdir import claim

FIELDS = {
    "data.threads": 0,
    "data.prefetch": 1,
    "model.g_channels": 2,
    "model.d_channels": 2,
    "model.latent_dim": 8,
    "model.shared_dim": 4,
    "train.batch": 8,
    "train.images": 32,
    "ema.start_step": 2,
    "evaluate.every_images": 0,
    "log.scalars_every_images": 16,
    "log.grid_rows": 2,
    "checkpoint.every_images": 16,
}


def command(workdir, **changes):
    fields = FIELDS | {name.replace("__", "."): value for name, value in changes.items()}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    start = [sys.executable, "-m", "ganjax.main", "--config=configs/biggan.py"]
    return [*start, f"--workdir={workdir}", *overrides]


def run(workdir, devices=1, prefix=(), **changes):
    """(status, what it said on standard error)."""
    result = subprocess.run(
        [*prefix, *command(workdir, **changes)],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stderr


def ask(workdir, *arguments):
    """(status, what it said on standard error) of a sample of a run."""
    start = [sys.executable, "-m", "ganjax.main", "--mode=sample", f"--workdir={workdir}"]
    result = subprocess.run([*start, *arguments], capture_output=True, text=True, timeout=300)
    return result.returncode, result.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a run of two steps, with a checkpoint of each."""
    workdir = tmp_path_factory.mktemp("main") / "run"
    code, said = run(workdir)
    assert code == 0, said
    return workdir


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def damage(workdir, step):
    files = (workdir / "checkpoints" / str(step) / "state").rglob("*")
    largest = max((file for file in files if file.is_file()), key=lambda file: file.stat().st_size)
    os.truncate(largest, 50)


def refuses(said, words):
    """One paragraph, no traceback, nothing compiled."""
    assert "Traceback" not in said and "Compiling" not in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert words in said[said.index(error) :], said


def test_help_is_no_failure():
    start = [sys.executable, "-m", "ganjax.main", "--help"]
    result = subprocess.run(start, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    for words in ("--mode", "BigGAN: values of a latent beyond", "distance from the mean w", "kid"):
        assert words in said, words


def test_a_video_of_a_run(finished, tmp_path):
    out = tmp_path / "z.mp4"
    code, said = ask(finished, "--video=z", f"--out={out}", "--classes=3,5", "--seconds=0.2")
    assert code == 0, said
    with av.open(str(out)) as file:
        assert file.streams.video[0].frames == 6


def test_a_video_that_the_family_has_not(finished):
    code, said = ask(finished, "--video=w")
    assert code == 2
    refuses(said, "There is no video 'w'; ganjax.families.biggan has ['z']")


def test_another_config(finished):
    code, said = run(finished, train__batch=16)
    assert code == 2
    refuses(said, "train.batch: 8 then, 16 now")
    assert checkpoint.read_config(finished).train.batch == 8


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(copied):
    damage(copied, 2)
    code, said = run(copied, train__images=16)
    assert code == 0
    assert "warning: The checkpoint" in said and "2 is damaged: state/" in said
    assert "is done: 16 of 16 images." in said and checkpoint.steps(copied) == [1]


def test_damage_everywhere(copied):
    damage(copied, 1)
    damage(copied, 2)
    code, said = run(copied)
    assert code == 2
    refuses(said, "is whole")
    assert len(list((copied / "checkpoints").glob("damaged-*"))) == 2


def test_a_damaged_config(copied):
    (copied / checkpoint.CONFIG).write_text('{"train')
    code, said = run(copied)
    assert code == 2
    refuses(said, "config.json is damaged")


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    code, said = run(tmp_path / "file" / "run")
    assert code == 2
    refuses(said, "file/run cannot be written (Not a directory)")


def test_a_second_run_in_the_workdir(finished):
    with claim(finished):
        code, said = run(finished)
    assert code == 2
    refuses(said, f"in use by process {os.getpid()} on {socket.gethostname()}")


def test_a_batch_that_does_not_divide(tmp_path):
    code, said = run(tmp_path, devices=8, train__batch=12)
    assert code == 2
    refuses(said, "is 12, which does not divide over the 8 devices")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "when"), [(signal.SIGTERM, "Compiling"), (signal.SIGINT, "Compiled in")]
)
def test_a_run_that_is_told_to_stop_saves_first(copied, number, when):
    with subprocess.Popen(
        command(copied, train__images=160_000, checkpoint__every_images=0),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr:
            if line.startswith(when):
                process.send_signal(number)
                break
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert f"{number.name}: saving after this step" in said
    assert "Traceback" not in said
    step = checkpoint.steps(copied)[-1]
    assert step > 2 and f"Told to stop at {step * 16} images; saved." in said


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(copied):
    files_of_60_kilobytes = ("bash", "-c", 'ulimit -f 60; exec "$0" "$@"')
    code, said = run(copied, prefix=files_of_60_kilobytes, train__images=64)
    assert code == 2 and "Traceback" not in said
    assert "checkpoints/3 could not be written: File too large" in said
    assert "Those of steps 1, 2 are whole." in said and checkpoint.steps(copied) == [1, 2]


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        ("raise_for_the_user", True),
        ("fail_in_a_library", False),
        ("fail_an_assertion", False),
        ("run_out_of_memory", True),
        ("meet_a_missing_file", True),
    ],
)
def test_what_is_a_bug(error, answer):
    with pytest.raises(Exception) as caught:
        {
            "raise_for_the_user": lambda: make_mesh({"width": 2}),
            "fail_in_a_library": lambda: make_mesh({"data": "two"}),
            "fail_an_assertion": lambda: exec("assert False", {"__name__": "ganjax.train"}),
            "run_out_of_memory": lambda: jax.jit(lambda: jax.numpy.ones(2**50))(),
            "meet_a_missing_file": lambda: open("/no/such/file"),
        }[error]()
    assert errors.is_answer(caught.value) == answer


def test_a_bug_shows_where_it_is(tmp_path):
    config = tmp_path / "broken.py"
    config.write_text("def get_config():\n    return len(3)\n")
    result = subprocess.run(
        [sys.executable, "-m", "ganjax.main", f"--config={config}"], capture_output=True, text=True
    )
    assert result.returncode == 1 and "Traceback" in result.stderr and "len(3)" in result.stderr
