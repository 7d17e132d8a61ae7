"""The comparison of StyleGAN-V's cost with StyleGAN2's, without compiling anything."""

import importlib

import pytest

from ganjax.adversarial.phases import items_per_step, programs
from ganjax.family import build

cost = importlib.import_module("benchmarks.styleganv_cost")


@pytest.mark.parametrize("name", cost.RIVALS)
def test_all_see_as_many_frames_with_the_same_channels(name):
    family = build(cost.config_of(name, resolution=32, channels=512, clips=4), "cpu")
    frames = family.item["clip"].shape[0] if "clip" in family.item else 1
    assert items_per_step(family.phases) * frames == 12
    played = {phase for due in programs(family.phases) for phase in due}
    assert ("g/path" in played) == ("path" in name) and {"g/main", "d/main", "d/r1"} <= played
    blocks = family.abstract_variables()["g"]["params"]["synthesis"]
    assert blocks["b32"]["conv1"]["kernel"].shape == (3, 3, 16, 16)


def test_the_table_counts_by_frame_and_beside_stylegan2():
    rows = [
        cost.Row("StyleGAN-V", 0.33, 0.6, 12),
        cost.Row("StyleGAN2", 0.3, 0.5, 12),
    ]
    lines = cost.table(rows).splitlines()
    assert lines[2] == "| StyleGAN-V | 27.5 | 1.100 | 50 | 1.200 |"
    assert lines[3] == "| StyleGAN2 | 25 | 1.000 | 41.67 | 1.000 |"
    alone = cost.table([cost.Row("StyleGAN2", 0.3, None, 12)])
    assert alone.splitlines()[2] == "| StyleGAN2 | 25 | 1.000 |  |  |"
