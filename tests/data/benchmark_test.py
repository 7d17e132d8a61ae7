"""benchmarks/data_stream.py, at its smallest."""

import dataclasses
import importlib
import json

import numpy as np

data_stream = importlib.import_module("benchmarks.data_stream")


def test_every_way_to_keep_the_same_pictures_is_timed(tmp_path):
    sources = list(data_stream.made_sources(tmp_path, 4, (8, 16)))
    names = ["folder", "zip", "records", "records, png", "records, jpeg"]
    assert [name for name, _, _ in sources] == names
    first = [source[2]["image"] for _, source, _ in sources]
    assert [image.shape for image in first] == [(375, 500, 3)] * 3 + [(8, 16, 3)] * 2
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_array_equal(first[0], first[2])

    report = data_stream.measure(
        sources[2:4], (8, 16), threads=(0, 2), batch=2, seconds=0.01, repeats=2, show=False
    )
    assert [(row.source, row.threads) for row in report.rows] == [
        ("records", 0),
        ("records", 2),
        ("records, png", 0),
        ("records, png", 2),
    ]
    assert all(0 < row.slowest <= row.per_second <= row.fastest for row in report.rows)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["rows"][0]["threads"] == 0
    assert "records, png" in str(report) and "8x16" in str(report)


def test_clips_are_timed_like_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(data_stream, "VIDEO_SIZE", (32, 24))
    frames = data_stream.video_frames
    monkeypatch.setattr(data_stream, "video_frames", lambda seed: frames(seed, 40))
    sources = list(data_stream.made_videos(tmp_path, 2, (8, 16)))
    assert [name.split(",")[0] for name, _, _ in sources] == [
        "folders of JPEGs",
        "mp4",
        "mp4",
        "records",
    ]
    assert [len(source[1]["video"]) for _, source, _ in sources] == [40] * 4
    report = data_stream.measure(
        sources[2:],
        (8, 16),
        threads=(0,),
        batch=2,
        seconds=0.01,
        repeats=1,
        clip=data_stream.CLIPS["sparse"],
        show=False,
    )
    assert all(row.per_second > 0 and row.bytes_each > 0 for row in report.rows)
    assert "clips/s" in str(report)
