import os
import signal

import pytest

from ganjax.parallel.preemption import Preemption
from tests import processes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_the_end(number):
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.reached(1)
        os.kill(os.getpid(), number)
        assert preemption.reached(2)
        assert preemption.signal is number
        assert signal.getsignal(number) is before  # a second one ends the process
    assert signal.getsignal(number) is before


def test_without_a_signal_nothing_stays():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Preemption() as preemption:
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert not preemption.reached(1)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_all_hosts_stop_at_the_same_step():
    stopped = processes.run("tests.parallel.preemption_test:count_until_told")
    assert stopped[0] == stopped[1] and stopped[0].startswith("stopped at ")


def count_until_told():
    """In each process: process 1 is told at step 5."""
    import time

    import jax

    with Preemption() as preemption:
        for step in range(1000):
            if step == 5 and jax.process_index() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            if preemption.reached(step):
                print("stopped at", step)
                return
            time.sleep(0.02)
