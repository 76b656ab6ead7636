"""What a process has for all of its threads, as far as pathlen could change it."""

from __future__ import annotations

import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._functorch import eager_transforms
from torch.autograd import forward_ad, functional
from torch.nn.modules import module as modules

FUNCTIONS = {
    "nn.Module": nn.Module,
    "torch.nn.modules.module": modules,
    "torch.backends.mha": torch.backends.mha,
    "torch": torch,
    "torch.random": torch.random,
    "torch.autograd.functional": functional,
    "torch.autograd.forward_ad": forward_ad,
    "eager_transforms": eager_transforms,
    "random": random,
    "the generator of random": random._inst,
    "numpy.random": np.random,
    "warnings": warnings,
}


def functions() -> dict[str, Any]:
    """Attributes of modules and classes: functions, flags and tables."""
    homes = dict(FUNCTIONS)
    if frames := sys.modules.get("torch._dynamo.eval_frame"):
        homes["eval_frame"] = frames
    return {
        f"{home}.{name}": value
        for home, owner in homes.items()
        for name, value in vars(owner).items()
        if callable(value) or isinstance(value, bool)
    }


def settings() -> dict[str, Any]:
    """Switches and numbers."""
    return {
        "filters of warnings": list(warnings.filters),
        "hooks of all modules": [
            len(table)
            for name, table in vars(modules).items()
            if name.startswith("_global_")
            if isinstance(table, dict)
        ],
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "sdp": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()),
        "mkldnn": torch.backends.mkldnn.enabled,
        "threads of torch": torch.get_num_threads(),
        "precision of products": torch.get_float32_matmul_precision(),
        "compiling": torch.compiler.is_compiling(),
        "modes": (
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
        ),
        "garbage": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "logging": logging.root.manager.disable,
        "loggers": {
            name: (own.disabled, list(own.filters), own.level)
            for name in ("torch._subclasses.fake_tensor", "torch", "pathlen")
            for own in [logging.getLogger(name)]
        },
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "signals": [signal.getsignal(own) for own in (signal.SIGINT, signal.SIGTERM)],
        "locale": locale.setlocale(locale.LC_ALL),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
        "hooks": (sys.getprofile(), sys.gettrace(), sys.getrecursionlimit()),
    }


def numbers() -> dict[str, Any]:
    """States of the generators of random numbers."""
    return {
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.default_generator.get_state().tolist(),
    }


def snapshot() -> dict[str, Any]:
    """All of it."""
    return functions() | settings() | numbers()


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not what it was; what was loaded since does not count."""
    return [name for name, value in before.items() if name not in now or now[name] != value]
