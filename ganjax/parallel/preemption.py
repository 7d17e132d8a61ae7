"""Being told to stop: SIGTERM from a machine that is taken away, Ctrl-C from a person."""

import itertools
import os
import signal
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

# JAX lets the hosts stop at the next of these numbers, and counts from 0 in every process: a step
# would not do, for a resumed run that is told before its first step would wait for step 1.
_asked = itertools.count(1)


class Preemption:
    """Whether the run has been told to stop, the same at the same step on all hosts.

    Use it as a context manager in the main thread, after :func:`ganjax.parallel.mesh.start`.
    A second signal does what it does without this: it ends the process at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        # With several hosts JAX itself listens for SIGTERM and tells the others; a handler of ours
        # would take its place.
        alone = jax.process_count() == 1
        for number in (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,):
            self._before[number] = signal.signal(number, self._told)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _told(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        self._restore()
        said = f"\n{self.signal.name}: saving after this step; once more ends at once.\n"
        os.write(2, said.encode())  # print() may be in the middle of another line
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def reached(self) -> bool:
        """Whether to save and stop now; every process asks once after every step."""
        if jax.process_count() == 1:
            return self.signal is not None
        return bool(multihost_utils.reached_preemption_sync_point(next(_asked)))
