"""Memory that is kept from step to step."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("resource")

COUNT = """
import ctypes, resource, sys
import torch
from pathlen.training.host_memory import keep_memory

kept = keep_memory() if sys.argv[1] == "keep" else hasattr(ctypes.CDLL(None), "mallopt")
torch.set_num_threads(1)
for turn in range(30):  # of 80 MB, freed at once; at first the heap grows
    if turn == 25:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(20_000_000)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that the system gave a process, while it freed and asked for the same again."""
    command = [sys.executable, "-c", COUNT, how]
    kept, pages = subprocess.run(command, check=True, capture_output=True).stdout.split()
    if kept != b"True":
        pytest.skip("not glibc")
    return int(pages)


def test_memory_is_kept():
    assert faults("keep") < 1000
    assert faults("not") > 10_000
