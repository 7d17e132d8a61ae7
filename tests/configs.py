"""The configs of all families, as tests go through them: a new file in ``configs/`` is one.

But `clip`, which is of a network that families look through.
"""

import importlib
import pathlib
from types import ModuleType

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
FAMILIES = sorted(
    file.stem for file in FOLDER.glob("*.py") if file.stem not in ("__init__", "clip")
)
every_family = pytest.mark.parametrize("name", FAMILIES)


def module(name: str) -> ModuleType:
    """The config file of a family."""
    return importlib.import_module(f"configs.{name}")
