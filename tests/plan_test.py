"""The plan: reading HLO text, and one tiny step through the real TPU compiler."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from ganjax import plan

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)

HLO = """HloModule step

%inner (p: f32[4]) -> f32[4] {
  %f.1 = f32[4]{0} add(%p, %p), backend_config={"estimated_cycles":"1000"}
}

%body (b: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %fusion.1 = f32[4]{0:T(128)} fusion(%b), calls=%inner, backend_config={"estimated_cycles":"10"}
  ROOT %all-reduce.2 = (f32[4,2]{1,0:T(8,128)}, bf16[8]{0}) all-reduce(%x, %y), channel_id=1
}

%condition (c: (s32[], f32[4,2])) -> pred[] {
  %bound = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

ENTRY %main (a: f32[4,2]) -> f32[4,2] {
  %copy.1 = f32[4,2]{1,0} copy(%a), backend_config={"estimated_cycles":"5"}
  %w = (s32[]{:T(128)}, f32[4,2]{1,0}) while(%t), condition=%condition, body=%body
  %g = (f32[2]{0}, f32[16]{0}) all-gather-start(%copy.1), channel_id=2
}
"""


def test_loops_count_as_often_as_they_run():
    read = plan.read_hlo(HLO)
    assert read.cycles == 5 + 3 * 10  # what a fusion holds is in its own estimate
    assert read.collectives == {
        "all-reduce": plan.Collectives(instructions=1, executed=3, bytes=3 * (32 + 16)),
        "all-gather": plan.Collectives(instructions=1, executed=1, bytes=64),
    }


def test_collectives_by_hand_share_a_channel_and_pieces_of_one_do_too():
    gather = HLO.splitlines()[-2]
    sent = "  %s.{0} = bf16[4]{{0}} all-to-all(%copy.1), channel_id=1"
    text = HLO.replace(gather, "\n".join([gather, gather, sent.format(0), sent.format(1)]))
    read = plan.read_hlo(text).collectives
    assert read["all-gather"].instructions == 1
    assert read["all-to-all"] == plan.Collectives(instructions=2, executed=2, bytes=16)


def test_noted_trip_count_wins():
    noted = HLO.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert plan.read_hlo(noted).cycles == 5 + 7 * 10


def test_shortage_names_what_is_needed():
    message = "RESOURCE_EXHAUSTED: Ran out of memory. Used 21.40G of 15.75G hbm. Exceeded"
    assert plan.shortage(message) == "does not fit: needs 21.40G of 15.75G"


def test_temporaries_alone_may_be_too_many():
    message = "Ran out of memory on HBM, the total memory required for HLO temporaries (31.05G) "
    said = plan.shortage(f"RESOURCE_EXHAUSTED: {message}exceeds available HBM (15.75G).")
    assert said == "does not fit: temporaries alone need 31.05G of 15.75G"


def test_a_report_ends_in_whether_it_fits_and_what_to_change():
    def report(*programs):
        return plan.Report("v5e:2x4", "TPU v5 lite", 8, 10, programs)

    row = plan.ProgramPlan(("g",), 1.0, 2.0, arguments=3, outputs=3, aliased=3, temporaries=7)
    more = dataclasses.replace(row, temporaries=8)
    full = dataclasses.replace(row, arguments=6, aliased=6, outputs=6)
    assert report(row).verdict() == ("fits",) and "\nfits\n" in str(report(row))
    assert "DOES NOT FIT" in str(report(row, more))
    assert "microbatches" in "".join(report(more).verdict())
    assert "config.mesh.fsdp" not in "".join(report(more).verdict())
    assert "config.mesh.fsdp" in "".join(report(full).verdict())
    unknown = plan.ProgramPlan(("g",), 1.0, 2.0, problem="does not fit: needs 2G of 1G")
    assert "config.mesh.fsdp" in "".join(report(unknown).verdict())


def test_without_libtpu_says_what_to_install(monkeypatch):
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="ganjax\\[tpu\\]"):
        plan._devices("v5e:2x4")


@needs_libtpu
@pytest.mark.tpu_compiler
def test_tiny_step_compiles_for_eight_chips(tmp_path):
    out = tmp_path / "plan.json"
    code = (
        "from ganjax import environment; environment.prepare()\n"
        "import pathlib, sys; from configs.biggan import tiny; from ganjax.plan import plan\n"
        "report = plan(tiny(), 'v5e:2x4'); print(report)\n"
        "pathlib.Path(sys.argv[1]).write_text(report.to_json())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        env={**os.environ, "JAX_OPTIMIZATION_LEVEL": "O0", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    assert "mean step" in run.stdout
    report = json.loads(out.read_text())
    assert report["devices"] == 8 and report["fits"]
    assert report["mean_seconds"] is None and "but no times" in run.stdout
    (program,) = report["programs"]
    assert program["cycles"] > 0 and program["flops"] > 0 and program["memory"] > 0
    assert program["collectives"]["all-reduce"][0] > 0
