"""Eight virtual CPU devices, checked shapes, and one persistent compilation cache for all tests."""

import os
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "ganjax-test-cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("NPROC", "128")  # threads of the devices: see ganjax/environment.py

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
KEPT = jax.config.jax_persistent_cache_min_compile_time_secs
install_import_hook("ganjax", "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: several workers then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """What a file's tests compiled: a worker's memory would grow to 7 GB.

    And that some were of several devices: programs of one are kept again (`make_mesh`).
    """
    yield
    jax.clear_caches()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT)
