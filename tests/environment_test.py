"""What is set before JAX looks for devices."""

import importlib.metadata
import importlib.util
import os

import pytest

from ganjax import environment


@pytest.fixture
def installed(monkeypatch):
    """Pretends a version of libtpu, and leaves the process' variables as they are."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("LIBTPU_INIT_ARGS", "JAX_NUM_CPU_DEVICES", "NPROC"):
        os.environ.pop(name, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def pretend(version):
        versions = {"libtpu": version, "jaxlib": "0"}
        monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)

    return pretend


def test_flags_of_libtpu_are_set_once_and_where_they_were_tried(installed):
    installed("0.0.0")
    environment.prepare()
    assert "LIBTPU_INIT_ARGS" not in os.environ
    installed(environment.TRIED_LIBTPU[0])
    for _ in range(2):
        environment.prepare()
        assert os.environ["LIBTPU_INIT_ARGS"].split() == list(environment.TPU_FLAGS)


def test_what_the_user_has_set_stays(installed):
    installed(environment.TRIED_LIBTPU[0])
    name, other = (flag.split("=")[0] for flag in environment.TPU_FLAGS)
    os.environ["LIBTPU_INIT_ARGS"] = f"--mine {name}=true"
    environment.prepare()
    assert os.environ["LIBTPU_INIT_ARGS"].split() == ["--mine", f"{name}=true", f"{other}=false"]


def test_virtual_devices_have_threads_for_collectives_that_wait(installed):
    installed("0.0.0")
    environment.prepare()
    assert "NPROC" not in os.environ
    os.environ["JAX_NUM_CPU_DEVICES"] = "100"
    environment.prepare()
    assert os.environ["NPROC"] == "1600"
