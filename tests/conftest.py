"""The processes that pytest-xdist runs the tests in: how many, and how many threads each has."""

from __future__ import annotations

import os

# Before anything imports torch or numpy, and for the processes that tests start as well. Threads of
# several processes that wait for each other on the same cores make everything many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers() -> int | None:
    """What `-n auto` is: the cores that this process may use.

    pytest-xdist itself asks psutil for those of the machine, of which a container has a part.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return None
    return len(os.sched_getaffinity(0))
