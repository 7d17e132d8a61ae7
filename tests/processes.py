"""Run a function of a test module as several processes that know each other, on this machine."""

import importlib
import os
import socket
import subprocess
import sys


def run(target: str, *arguments: str, processes: int = 2, devices: int = 2, timeout: float = 120):
    """Call ``target`` ("tests.module:function") in each process; their standard outputs.

    Raises:
      AssertionError: a process failed; with what all of them said.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.processes", target, str(devices), *arguments],
            env=os.environ
            | {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(i),
                "JAX_PLATFORMS": "cpu",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    try:
        said = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    failed = any(process.returncode for process in started)
    assert not failed, "\n".join(out + err for out, err in said)
    return [out for out, _ in said]


def main():
    """One of the processes."""
    target, devices, *arguments = sys.argv[1:]
    import jax

    from ganjax.parallel import mesh

    jax.config.update("jax_num_cpu_devices", int(devices))
    mesh.start()
    module, function = target.split(":")
    getattr(importlib.import_module(module), function)(*arguments)


if __name__ == "__main__":
    main()
