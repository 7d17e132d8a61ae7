"""The configs of all families, as tests go through them: a new file in ``configs/`` is one."""

import importlib
import pathlib
from types import ModuleType

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
FAMILIES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")
every_family = pytest.mark.parametrize("name", FAMILIES)


def module(name: str) -> ModuleType:
    """The config file of a family."""
    return importlib.import_module(f"configs.{name}")
