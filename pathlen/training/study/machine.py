"""The machine of a run in words, which stand beside its results."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def machine_in_words() -> str:
    """What this process computes with: "Intel Xeon, 2 cores, 1 thread, no GPU"."""
    threads = torch.get_num_threads()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    parts = [_processor(), f"{cores()} cores", f"{threads} thread{'s' * (threads > 1)}", gpu]
    return ", ".join(parts)


def _processor() -> str:
    """The name of the processor; Linux has it in a file, others say at least its kind."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
