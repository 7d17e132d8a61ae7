"""What must be set before JAX looks for devices. Whatever the user has set stays as it is."""

import glob
import importlib.metadata
import importlib.util
import os

# Brings back the fast convolutions of XLA's CPU compiler: a BigGAN step on two cores takes 0.8 of
# the time (CHANGELOG.md). An unknown XLA flag aborts the process: set only where it was tried.
CPU_CONVOLUTION_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
CPU_CONVOLUTION_VALUE = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
TRIED_JAXLIB = ("0.10.2", "0.11.2")


def prepare() -> None:
    """Fast convolutions on CPU, and quiet where the TPU compiler is installed without a TPU."""
    flags = os.environ.get("XLA_FLAGS", "")
    if CPU_CONVOLUTION_FLAG not in flags and importlib.metadata.version("jaxlib") in TRIED_JAXLIB:
        value = f"{CPU_CONVOLUTION_FLAG}={CPU_CONVOLUTION_VALUE}"
        os.environ["XLA_FLAGS"] = f"{flags} {value}".strip()
    if importlib.util.find_spec("libtpu") and not has_tpu():
        # libtpu would look for a TPU, find none and say so at length.
        os.environ.setdefault("JAX_PLATFORMS", "cuda,cpu" if has_cuda() else "cpu")
        # Compiling for a TPU topology needs a name for the machine that we do not have.
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        os.environ.setdefault("TPU_LOG_DIR", "disabled")


def has_tpu() -> bool:
    """Whether this host has TPU chips."""
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def has_cuda() -> bool:
    """Whether this host has an NVIDIA GPU and JAX its plugin for it."""
    plugins = ("jax_cuda13_plugin", "jax_cuda12_plugin")
    return os.path.exists("/dev/nvidiactl") and any(map(importlib.util.find_spec, plugins))
