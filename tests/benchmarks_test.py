"""The benchmarks that a person runs by hand, at their smallest."""

import dataclasses
import importlib
import json
import shutil

import numpy as np
import pytest

from ganjax import checkpoint

configs = importlib.import_module("configs.biggan")
kill_resume = importlib.import_module("benchmarks.kill_resume")
train_step = importlib.import_module("benchmarks.train_step")


@pytest.mark.slow
def test_train_step_times_each_program():
    report = train_step.measure(configs.tiny().lock(), steps=3)
    (row,) = report.rows
    assert row.due == ("d/main", "g/main") and row.share == 1.0
    assert 0 < row.ms_fastest <= row.ms <= row.ms_slowest and row.compile_seconds > 0
    assert report.images == 16 and report.steps == 5
    np.testing.assert_allclose(report.images_per_second, 16e3 / row.ms)
    assert row.planned_bytes > 0 and row.peak_bytes > 0
    assert json.loads(json.dumps(dataclasses.asdict(report)))["rows"][0]["ms"] == row.ms
    assert "d/main+g/main" in str(report)


@pytest.mark.slow
def test_killed_runs_lose_nothing(tmp_path):
    fields = kill_resume.SMALL | {"train.images": "96", "log.grid_every_images": "32"}
    arguments = ["--config=configs/biggan.py", *(f"--config.{n}={v}" for n, v in fields.items())]
    result = kill_resume.kill_resume(arguments, 2, seed=0, folder=tmp_path, show=False)
    assert len(result.kills) == 2 and not result.lost, str(result)
    assert any(kill.step for kill in result.kills)  # something could have been lost

    # Its eyes are open: a checkpoint, a line and a picture are missed.
    whole, other = tmp_path / "whole", tmp_path / "other"
    shutil.copytree(whole, other)
    assert kill_resume.differences(whole, other) == []
    picture, *_ = (other / "samples").glob("*.png")
    picture.unlink()
    metrics = other / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[1:]))
    newest = checkpoint.steps(other)[-1]
    (other / "checkpoints" / str(newest)).rename(other / "checkpoints" / str(newest + 1))
    found = " ".join(kill_resume.differences(whole, other))
    for words in ("checkpoints of steps", "is lost or differs", "is missing or differs"):
        assert words in found
