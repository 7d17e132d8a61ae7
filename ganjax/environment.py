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

# Convolutions of fewer than 8 images a chip are not split into parts of images: copying those costs
# more than what they save (docs/tpu.md). An unknown flag of libtpu ends the process, too.
TPU_FLAGS = (
    "--xla_tpu_run_space_to_batch=false",
    "--xla_tpu_run_space_to_batch_on_new_platforms=false",
)
TRIED_LIBTPU = ("0.0.42.1",)

# XLA's threads for each virtual device of a CPU. One that waits in a collective holds a thread, and
# a program may have several under way; of a thread each, XLA's default, some devices then get none,
# and XLA ends the process after 40 s.
THREADS = 16


def prepare() -> None:
    """Fast convolutions, and quiet where the TPU compiler is installed without a TPU."""
    flags = os.environ.get("XLA_FLAGS", "")
    if CPU_CONVOLUTION_FLAG not in flags and importlib.metadata.version("jaxlib") in TRIED_JAXLIB:
        value = f"{CPU_CONVOLUTION_FLAG}={CPU_CONVOLUTION_VALUE}"
        os.environ["XLA_FLAGS"] = f"{flags} {value}".strip()
    if devices := int(os.environ.get("JAX_NUM_CPU_DEVICES") or 0):
        os.environ.setdefault("NPROC", str(max(THREADS * devices, os.cpu_count() or 1)))
    compiler = importlib.util.find_spec("libtpu")
    if compiler and importlib.metadata.version("libtpu") in TRIED_LIBTPU:
        given = os.environ.get("LIBTPU_INIT_ARGS", "").split()
        names = {flag.split("=")[0] for flag in given}
        ours = [flag for flag in TPU_FLAGS if flag.split("=")[0] not in names]
        os.environ["LIBTPU_INIT_ARGS"] = " ".join((*given, *ours))
    if compiler and not has_tpu():
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
