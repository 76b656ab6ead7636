"""What all tests have in common: processes, threads, signals, and what Hypothesis minds."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports torch or numpy, and for the processes that tests start as well. Threads of
# several processes that wait for each other on the same cores make everything many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background lets them, and what they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast examples are made depends on what else the machine does.
settings.register_profile("pathlen", max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pathlen")


@pytest.fixture(autouse=True)
def closed_figures():
    """Close the figures that a test leaves open: pyplot keeps them, and warns of the twentieth."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def pytest_xdist_auto_num_workers() -> int | None:
    """What `-n auto` is: the cores that this process may use.

    pytest-xdist itself asks psutil for those of the machine, of which a container has a part.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return None
    return len(os.sched_getaffinity(0))
