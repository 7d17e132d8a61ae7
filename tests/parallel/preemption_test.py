import os
import signal

import pytest

from ganjax.parallel.preemption import Preemption
from tests import processes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_the_end(number):
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.reached()
        os.kill(os.getpid(), number)
        assert preemption.reached()
        assert preemption.signal is number
        assert signal.getsignal(number) is before  # a second one ends the process
    assert signal.getsignal(number) is before


def test_without_a_signal_nothing_stays():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Preemption() as preemption:
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert not preemption.reached()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("told_at", [0, 5])
def test_all_hosts_stop_at_the_same_step(number, told_at):
    arguments = str(int(number)), str(told_at)
    stopped = processes.run("tests.parallel.preemption_test:count_until_told", *arguments)
    assert stopped[0] == stopped[1] and stopped[0].startswith("stopped at ")


def count_until_told(number, told_at):
    """In each process: process 1 is told, perhaps before a resumed run has taken a step."""
    import time

    import jax

    with Preemption() as preemption:
        for step in range(100, 1000):
            if step == 100 + int(told_at):
                if jax.process_index() == 1:
                    os.kill(os.getpid(), int(number))
                time.sleep(1.5)  # until both processes know
            if preemption.reached():
                print("stopped at", step)
                return
            time.sleep(0.02)
    print("never stopped")
