"""What slopes, prior and monitor cost in training: ratios of steps taken in turn in one process.

    python benchmarks/training.py [--rounds 7] [--batch 128] [--threads 1]

One line for each variant of a ResNet-20 for CIFAR: processor seconds of a training step (median),
its ratio to the variant that it is compared with (median of paired ratios), and the bytes that
autograd keeps between forward and backward, counted once for each storage, as a ratio to the
original's.

- `slopes at 0`, `slopes at 0.3`: `make_linearizable`, against the original model
- `prior`: penalty, freezing and a reading of the monitor in every step, against slopes at 0.3
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

# In place of this folder, whose coverage.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import pathlen  # noqa: E402
from pathlen.training import (  # noqa: E402
    CifarResNet,
    SparsityPrior,
    make_linearizable,
    parameter_groups,
    slopes_of,
)

AGAINST = {
    "slopes at 0": "original",
    "slopes at 0.3": "original",
    "prior": "slopes at 0.3",
}


class Variant:
    """A model with what its training step does."""

    def __init__(self, name: str, images: Tensor, labels: Tensor) -> None:
        torch.manual_seed(0)
        self.images, self.labels = images, labels
        self.model: nn.Module = CifarResNet(20)
        self.prior: SparsityPrior | None = None
        if name != "original":
            make_linearizable(self.model, images[:1])
        if name in ("slopes at 0.3", "prior"):
            for own in slopes_of(self.model):
                nn.init.constant_(own.parameter, 0.3)
        if name == "prior":
            self.monitor = pathlen.DepthMonitor(self.model, images[:1])
            self.prior = SparsityPrior(self.model, omega=1e-4)
        groups = [g for g in parameter_groups(self.model, 5e-4) if g["params"]]
        self.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)

    def loss(self) -> Tensor:
        loss = nn.functional.cross_entropy(self.model(self.images), self.labels)
        return loss if self.prior is None else loss + self.prior.penalty()

    def step(self) -> None:
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.prior is not None:
            self.prior.step(0.01)
            self.monitor.update()

    def kept_bytes(self) -> int:
        """What autograd keeps after the forward, parameters left out."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        found = sum(kept.values())
        del loss
        return found


def seconds(function: Callable[[], None]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    images = torch.randn(arguments.batch, 3, 32, 32)
    labels = torch.randint(0, 10, (arguments.batch,))
    variants = {name: Variant(name, images, labels) for name in ("original", *AGAINST)}
    kept = {name: variant.kept_bytes() for name, variant in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(arguments.rounds + 1):
        for name, variant in variants.items():
            taken = seconds(variant.step)
            if turn:  # the first one warms up
                times[name].append(taken)
    for name in variants:
        other = AGAINST.get(name, "original")
        pairs = zip(times[name], times[other], strict=True)
        ratio = statistics.median(one / two for one, two in pairs)
        memory = kept[name] / kept["original"]
        print(
            f"{name:<14} step {statistics.median(times[name]):.4f} s  {ratio:.3f} x {other}"
            f"  kept {kept[name] / 2**20:.0f} MiB, {memory:.3f} x original"
        )


if __name__ == "__main__":
    main()
