"""The one mesh of a run, how several hosts join it, and how a batch lies on it."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ganjax import environment

AXES = ("data", "expert", "fsdp")  # every axis carries a part of the batch


def start(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other hosts of this run, if there are any; call before anything touches a device.

    Without arguments the environment decides: ``JAX_COORDINATOR_ADDRESS`` with
    ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``, a Cloud TPU slice of several hosts, SLURM
    (``srun`` with more than one task), or Open MPI. Nothing of these: one process, and no
    networking at all. A second call does nothing.

    Args:
      coordinator: ``host:port`` of process 0.
      processes: how many there are.
      process: which of them this is.

    Raises:
      ValueError: only a part of the three is known.
    """
    if jax.distributed.is_initialized():
        return
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes = processes if processes is not None else _env_int("JAX_NUM_PROCESSES")
    process = process if process is not None else _env_int("JAX_PROCESS_ID")
    explicit = {"coordinator": coordinator, "processes": processes, "process": process}
    given = {name: value for name, value in explicit.items() if value is not None}
    if len(given) == 3:
        if processes == 1:
            return
        jax.distributed.initialize(
            coordinator, processes, process, cluster_detection_method="deactivate"
        )
    elif _in_cluster():
        jax.distributed.initialize(coordinator, processes, process)
    elif given:
        missing = ", ".join(name for name in explicit if name not in given)
        raise ValueError(
            f"Several processes were asked for with {given}, but {missing} is not known. Set all "
            "of JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or none."
        )
    elif _wants_tpu():
        try:
            jax.distributed.initialize()
        except ValueError:  # a TPU outside of a slice, such as a notebook's
            return


def _env_int(name: str) -> int | None:
    value = os.environ.get(name)
    if value is None:
        return None
    if not value.isdecimal():
        raise ValueError(f"The environment variable {name} is {value!r}; a count is wanted.")
    return int(value)


def _in_cluster() -> bool:
    tasks = (
        os.environ.get("SLURM_STEP_NUM_TASKS", "1"),
        os.environ.get("OMPI_COMM_WORLD_SIZE", "1"),
    )
    return any(count.isdecimal() and int(count) > 1 for count in tasks)


def _wants_tpu() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and "tpu" not in platforms.split(","):
        return False
    return environment.has_tpu()


def make_mesh(
    sizes: Mapping[str, int] | Any = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh whose axes are ``("data", "expert")``, and ``"fsdp"`` where it is larger than 1.

    NOTE: from a mesh of several CPU devices on, this process keeps no program for later processes.
    Of those that XLA reads back from JAX's persistent cache, collectives are not in order any more:
    devices wait for each other in different ones, until XLA ends the process after 40 s.

    Args:
      sizes: devices along each axis (``config.mesh``); one axis may be -1, the rest. The default
        is all devices on ``data``.
      devices: those of a topology to compile for; the default is all of this run.

    Raises:
      ValueError: an unknown axis, or sizes that do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = {"data": -1} if sizes is None else dict(sizes)
    unknown = [name for name in sizes if name not in AXES]
    if unknown:
        raise ValueError(
            f"config.mesh has no axis {unknown[0]!r}; the axes are {', '.join(AXES)}. "
            "Set e.g. config.mesh = {'data': -1, 'expert': 1}."
        )
    sizes = _fill({"data": 1, "expert": 1} | sizes, len(devices))
    names = tuple(name for name in AXES if name != "fsdp" or sizes.get(name, 1) > 1)
    shape = tuple(sizes[name] for name in names)
    if len(devices) > 1 and devices[0].platform == "cpu":
        jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    return Mesh(_arrange(shape, devices), names, axis_types=(AxisType.Auto,) * len(names))


def _fill(sizes: Mapping[str, int], devices: int) -> dict[str, int]:
    """Replace the -1, and check the product."""
    rest = [name for name, size in sizes.items() if size == -1]
    bad = [name for name, size in sizes.items() if size < 1 and size != -1]
    if bad or len(rest) > 1:
        raise ValueError(
            f"config.mesh is {dict(sizes)}; positive sizes are wanted, and -1 (the rest of the "
            "devices) for one axis at most."
        )
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if devices % fixed or (not rest and fixed != devices):
        raise ValueError(
            f"config.mesh is {dict(sizes)}, which multiplies to {fixed}, but there are {devices} "
            f"devices. Set one of config.mesh.{', .'.join(AXES)} to -1, or sizes whose product "
            f"is {devices}."
        )
    return {name: devices // fixed if size == -1 else size for name, size in sizes.items()}


def _arrange(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices in the order that makes neighbours along an axis neighbours on the chip's network."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1 and shape[0] % slices == 0:
        within = (shape[0] // slices, *shape[1:])
        across = (slices, *(1 for _ in shape[1:]))
        return mesh_utils.create_hybrid_device_mesh(
            within, across, devices, allow_split_physical_axes=True
        )
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def batch_spec(mesh: Mesh, leading: int = 2) -> P:
    """The batch over every axis of the mesh, after ``leading`` dimensions that are not split.

    ``leading=2`` is the layout of a step's batch, ``[times, microbatches, n, ...]``.
    """
    return P(*(None,) * leading, tuple(mesh.axis_names))


def batch_sharding(mesh: Mesh, leading: int = 2) -> NamedSharding:
    """:func:`batch_spec` on its mesh."""
    return NamedSharding(mesh, batch_spec(mesh, leading))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def check_batch(batch: int, mesh: Mesh, what: str = "config.batch") -> None:
    """Raise a ValueError unless ``batch`` divides over the devices of the mesh."""
    if batch < 1 or batch % mesh.size:
        below, above = (max(batch // mesh.size + i, 0) * mesh.size for i in (0, 1))
        near = f"{below} or {above}" if below else f"{above or mesh.size}"
        raise ValueError(
            f"{what} is {batch}, which does not divide over the {mesh.size} devices of the mesh "
            f"{dict(mesh.shape)}. Set it to a multiple of {mesh.size}, e.g. {near}."
        )
