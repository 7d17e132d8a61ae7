"""The comparison of MTM, at its smallest."""

import importlib
import json

import pytest

mtm = importlib.import_module("benchmarks.mtm")


def test_time_per_image_is_the_median_between_lines(tmp_path):
    lines = [(0, 0.0), (100, 9.0), (200, 10.0), (300, 11.0), (500, 13.0)]
    text = "\n".join(json.dumps({"images": images, "time": time}) for images, time in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    assert mtm.milliseconds(tmp_path) == pytest.approx(10.0)


def test_a_mean_has_a_deviation_where_there_are_several():
    assert mtm.row("fd", [1.0, 3.0]) == "fd 2 +- 1.41"
    assert mtm.row("fd", [2.0]) == "fd 2"


@pytest.mark.slow
def test_both_variants_are_trained_and_measured(tmp_path, capsys):
    mtm.compare(tmp_path, ["0"], images=64, jobs=2, samples=100)
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").open()]
    assert [result["variant"] for result in results] == list(mtm.VARIANTS)
    assert all(result["fd_warped_digits"] > 0 for result in results)
    assert "mtm low fd_warped_digits" in capsys.readouterr().out
    configs = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/config.json"))]
    assert [config["model"].pop("mtm") for config in configs] == [["low"], []]
    assert configs[0] == configs[1]
