"""Tracing, training and serving in eight threads for a while: no wrong number, no leak, no change.

`python -m tests.soak 600` does so for ten minutes and prints what it found; tests/test_threads.py
for seconds. Every thread compares what it gets with what it gets alone, bit for bit.
"""

from __future__ import annotations

import copy
import gc
import os
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import pathlen
from pathlen.training import CifarResNet, SparsityPrior, make_linearizable, slopes_of
from tests.process_state import changed, functions, settings

Work = Callable[[], Any]
"""A piece of work that gives the same each time, to be compared."""


class Functions(nn.Module):
    """Activations that are functions, a formula among them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.gelu(self.first(x))
        return self.last(torch.relu(h * torch.sigmoid(h)))


class Drawing(Functions):
    """Draws from every generator, converts itself, reads values and takes derivatives."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        y = super().forward(self.to(torch.float32) and x) * torch.rand(4)
        y = y + random.random() + float(np.random.rand())
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y + slope[:, :4] * (1 if y.sum().item() else 0)


def measured(model: nn.Module, x: Tensor) -> Work:
    def work() -> Any:
        report = pathlen.measure(model, x)
        return report.average_path_length, report.num_active, report.status

    return work


def verified(model: nn.Module, x: Tensor) -> Work:
    def work() -> Any:
        verdict = pathlen.verify(
            model, x, samples=1, spellings=0
        )  # torch.export is not for threads
        return verdict.ok, [(check.name, check.count) for check in verdict.checks]

    return work


def followed(model: nn.Module, x: Tensor) -> Work:
    def work() -> Any:
        own = make_linearizable(copy.deepcopy(model), x)
        monitor = pathlen.DepthMonitor(own, x)
        with torch.no_grad():
            slopes_of(own)[0].parameter[:3] = 1
        return monitor.update().average_path_length, pathlen.measure(own, x).average_path_length

    return work


def trained(model: nn.Module, x: Tensor, steps: int = 10) -> Work:
    def work() -> Any:
        own = copy.deepcopy(model).train()
        optimizer = torch.optim.SGD(own.parameters(), 0.1)
        prior = SparsityPrior(own, omega=0.01)
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = own(x).square().mean() + prior.penalty()
            loss.backward()
            optimizer.step()
            prior.step()
            losses.append(loss.item())
        return losses, prior.num_active

    return work


def served(model: nn.Module, *inputs: Tensor) -> Work:
    def work() -> Any:
        with torch.inference_mode():
            return [model(x).tolist() for x in inputs]

    return work


def converted(model: nn.Module) -> Work:
    def work() -> Any:
        made = [copy.deepcopy(model).to(kind) for kind in (torch.float64, torch.bfloat16)]
        made += [copy.deepcopy(model).half(), copy.deepcopy(model).to("meta")]
        kinds = [(str(p.dtype), str(p.device)) for own in made for p in own.parameters()]
        with torch.no_grad():
            without = model(torch.ones(1, 8)).requires_grad
        new = torch.zeros(1).dtype, (torch.arange(3) / 2).dtype
        jacobian = torch.autograd.functional.jacobian(torch.sin, torch.ones(2)).tolist()
        return kinds, without, model(torch.ones(1, 8)).requires_grad, new, jacobian

    return work


def warned() -> Any:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warnings.warn("told", stacklevel=1)
    return [str(own.message) for own in found if own.category is UserWarning]


class Numbers:
    """Draws from the generators of the process, which no other thread here may do."""

    def __init__(self) -> None:
        self.draws = (
            lambda: torch.rand(2).tolist(),
            random.random,
            np.random.rand,
            lambda: functional.dropout(torch.ones(9)).tolist(),
            lambda: random.sample(range(99), 3),
            lambda: np.random.permutation(5).tolist(),
        )
        torch.manual_seed(11)
        random.seed(11)
        np.random.seed(11)
        self.others = torch.Generator(), random.Random(), np.random.RandomState(11)
        self.others[0].manual_seed(11)
        self.others[1].seed(11)

    def __call__(self) -> bool:
        of_torch, python, numpy = self.others
        expected = [
            torch.rand(2, generator=of_torch).tolist(),
            python.random(),
            numpy.rand(),
            (torch.empty(9).bernoulli_(0.5, generator=of_torch) / 0.5).tolist(),
            python.sample(range(99), 3),
            numpy.permutation(5).tolist(),
        ]
        return [draw() for draw in self.draws] == expected


_MODELS: list[nn.Module] = []


def _modes() -> list[bool]:
    return [module.training for model in _MODELS for module in model.modules()]


def threads() -> dict[str, list[Work]]:
    """What each thread does, one piece of work after another."""
    torch.manual_seed(0)
    small = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).train()
    images, x = CifarResNet(8, width=4), torch.randn(2, 8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    encoder = nn.TransformerEncoder(copy.deepcopy(layer), 1)
    slopes = make_linearizable(Functions(), x)
    pictures = make_linearizable(CifarResNet(8, width=4), torch.ones(1, 3, 8, 8)).eval()
    for own in (*slopes_of(slopes), *slopes_of(pictures)):
        nn.init.uniform_(own.parameter, 0.1, 0.9)
    picture, tokens = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 8)
    _MODELS[:] = [small, images, encoder, slopes, pictures, layer]
    serve = [served(slopes, x), served(pictures, picture), served(layer, tokens)]
    return {
        "trace": [
            measured(images, torch.ones(1, 3, 8, 8)),
            measured(encoder, tokens),
            measured(small, x),
        ],
        "trace otherwise": [measured(Drawing(), x), measured(slopes, x), measured(small, x)],
        "verify": [verified(small, x), followed(Functions(), x)],
        "train": [trained(copy.deepcopy(slopes), x), trained(copy.deepcopy(pictures), picture)],
        "serve": serve,
        "serve too": [*reversed(serve)],
        "convert": [converted(copy.deepcopy(small)), warned],
        "draw": [Numbers()],
    }


@dataclass
class Usage:
    """What the process takes."""

    memory: int
    objects: int
    threads: int
    files: int

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        pages = Path("/proc/self/statm").read_text().split()[1] if _PROC else "0"
        files = len(list(Path("/proc/self/fd").iterdir())) if _PROC else 0
        memory = int(pages) * os.sysconf("SC_PAGE_SIZE") if _PROC else 0
        return cls(memory, len(gc.get_objects()), threading.active_count(), files)

    def grown(self, since: Usage) -> dict[str, float]:
        """By how much, as shares."""
        return {
            name: getattr(self, name) / max(1, getattr(since, name)) - 1 for name in vars(since)
        }


_PROC = Path("/proc/self/statm").exists()


@dataclass
class Found:
    """What came of it."""

    rounds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    grown: dict[str, float] = field(default_factory=dict)


def soak(seconds: float, every: float = 0.02) -> Found:
    """Let all threads work, and look at the process meanwhile.

    Args:
        seconds: For how long; usage is compared with what it is after a quarter of them.
        every: How often settings that no thread may see changed are looked at.
    """
    found, works = Found(), threads()
    alone = {name: [work() for work in own] for name, own in works.items()}
    modes = _modes()
    before = functions() | settings()
    end = time.monotonic() + seconds
    pause, resumed = threading.Event(), threading.Barrier(len(works) + 1)

    def run(name: str) -> None:
        try:
            while time.monotonic() < end:
                for number, work in enumerate(works[name]):
                    result = work()
                    if result != alone[name][number]:
                        told = f"{name} {number}: {result} in place of {alone[name][number]}"
                        found.failures.append(told[:300])
                found.rounds[name] += 1
                if pause.is_set():
                    resumed.wait()
                    resumed.wait()
        except BaseException as error:
            found.failures.append(f"{name}: {type(error).__name__}: {error}")
            resumed.abort()
            raise

    running = [threading.Thread(target=run, args=(name,), name=name) for name in works]
    for thread in running:
        thread.start()
    usages = list(_usages(pause, resumed, end, seconds, every, found))
    for thread in running:
        thread.join()
    found.changed += changed(before, functions() | settings())
    if _modes() != modes:  # of models that several threads have traced at the same time
        found.changed.append("modes of models")
    if len(usages) == 2:
        found.grown = usages[1].grown(usages[0])
    return found


def _usages(
    pause: threading.Event,
    resumed: threading.Barrier,
    end: float,
    seconds: float,
    every: float,
    found: Found,
) -> Iterator[Usage]:
    """The usage after a quarter of the time and near its end, with all threads at rest."""
    for moment in (end - 0.75 * seconds, end - 0.1 * seconds):
        while time.monotonic() < moment:
            _look(found)
            time.sleep(every)
        pause.set()
        try:
            resumed.wait()
            yield Usage.now()
            pause.clear()
            resumed.wait()
        except threading.BrokenBarrierError:
            return


def _look(found: Found) -> None:
    """Note what other threads see of those that trace."""
    seen = {
        "default dtype": torch.get_default_dtype() == torch.float32,
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "gradients": torch.is_grad_enabled(),
        "hooks": not nn.modules.module._has_any_global_hook(),
        "compiling": not torch.compiler.is_compiling(),
        "threads": torch.get_num_threads() == _THREADS,
    }
    found.changed += [f"meanwhile: {name}" for name, right in seen.items() if not right]


_THREADS = torch.get_num_threads()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    found = soak(seconds)
    print(f"{seconds:g} s; rounds: {dict(found.rounds)}")
    print(f"wrong: {Counter(found.failures)}")
    print(f"changed: {Counter(found.changed)}")
    print("grown: " + ", ".join(f"{name} {share:+.2%}" for name, share in found.grown.items()))
    most = max(found.grown.values(), default=1.0)
    sys.exit(bool(found.failures or found.changed or most > 0.05))


if __name__ == "__main__":
    main()
