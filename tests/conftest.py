"""Eight virtual CPU devices, checked shapes, and one persistent compilation cache for all tests."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "ganjax-test-cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# XLA's threads. A device that waits in a collective holds one, a program may have several under
# way, and with a thread a device, the default, some devices then never get to theirs.
os.environ.setdefault("NPROC", "32")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
install_import_hook("ganjax", "beartype.beartype")
