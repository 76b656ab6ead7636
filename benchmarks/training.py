"""What training under the prior costs, and what is left of the accuracy.

    python benchmarks/training.py [--tables cost digits number_words] [--rounds 7] [--batch 128]
        [--threads 1] [--device cpu] [--seeds 0 1 2] [--set KEY=VALUE ...] [--folder runs/benchmark]

Tables `digits` and `number_words` carry out the recipe of that name once for each seed: the dense
network's result on the items held out, that of the network linearized to half of its normalized
average path length, and their difference. A run that is in the folder already is not run again.
`--set` changes the recipe, as for `pathlen train`.

Table `cost`: ratios of steps taken in turn in one process. One line for each variant of a
ResNet-20 for CIFAR: processor seconds of a training step (median; of several steps on a GPU, by the
clock, until it is done), its ratio to the variant that it is compared with (median of paired
ratios), and the bytes that autograd keeps between forward and backward, counted once for each
storage, as a ratio to the original's.

- `slopes at 0`, `slopes at 0.3`: `make_linearizable`, against the original model
- `prior`: penalty, freezing and a reading of the monitor in every step, against slopes at 0.3
- `plan`: the same as recipes have it: half of the depth by a plan, and on a GPU a reading every 20
  steps
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# In place of this folder, whose coverage.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import pathlen  # noqa: E402
from pathlen.training import (  # noqa: E402
    CifarResNet,
    Plan,
    SparsityPrior,
    Target,
    load_recipe,
    make_linearizable,
    parameter_groups,
    slopes_of,
    train,
)

AGAINST = {
    "slopes at 0": "original",
    "slopes at 0.3": "original",
    "prior": "slopes at 0.3",
    "plan": "slopes at 0.3",
}
STEPS = {"cpu": 1, "cuda": 20}
"""Steps that are timed together: a GPU is waited for after them."""


class Variant:
    """A model with what its training step does."""

    def __init__(self, name: str, images: Tensor, labels: Tensor) -> None:
        torch.manual_seed(0)
        self.images, self.labels = images, labels
        self.model: nn.Module = CifarResNet(20)
        self.prior: SparsityPrior | None = None
        if name != "original":
            make_linearizable(self.model, images[:1].cpu())
        if name in ("slopes at 0.3", "prior", "plan"):
            for own in slopes_of(self.model):
                nn.init.constant_(own.parameter, 0.3)
        self.model.to(images.device)
        self.done, self.between = 0, 1 if name == "prior" else STEPS[images.device.type]
        if name in ("prior", "plan"):
            monitor = self.monitor = pathlen.DepthMonitor(self.model, images[:1])
            half = Target("napl", monitor.update().normalized_average_path_length / 2)
            plan = Plan(half, 10_000) if name == "plan" else None
            self.prior = SparsityPrior(self.model, omega=1e-4, monitor=monitor, plan=plan)
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
            self.done += 1
            if self.done % self.between == 0:
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


def seconds(function: Callable[[], None], device: str) -> float:
    """Processor seconds of one call, or seconds by the clock of one on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    for _ in range(STEPS[device]):
        function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / STEPS[device]


def accuracies(recipe: str, changes: list[str], seeds: list[int], folder: Path) -> None:
    """Print the dense and the linearized result of each seed, and their means."""
    print(f"{recipe:<14}{'dense':>9}{'half':>9}{'points':>9}{'NAPL':>9}{'of':>7}{'seconds':>9}")
    rows = []
    for seed in seeds:
        settings = load_recipe(recipe, [*changes, f"seed={seed}"])
        summary = train(settings, folder / f"{recipe}-{seed}").summary
        dense, last = summary["phases"]["train"], summary["phases"]["finetune"]
        assert summary["target"]["reached"], summary["target"]
        results = [_percent(row, summary["metric"]) for row in (dense, last)]
        rows.append([*results, results[1] - results[0], last["napl"], dense["napl"]])
        rows[-1].append(summary["seconds"])
        print(_aligned(f"seed {seed}", rows[-1]), flush=True)
    print(_aligned("mean", [statistics.mean(column) for column in zip(*rows, strict=True)]))


def _percent(row: Mapping[str, Any], metric: str) -> float:
    """BLEU, or the accuracy in per cent."""
    return row["bleu"] if metric == "bleu" else 100 * row["test_accuracy"]


def _aligned(label: str, row: Sequence[float]) -> str:
    first = "".join(f"{value:>9.2f}" for value in row[:4])
    return f"{label:<14}{first}{row[4]:>7.2f}{row[5]:>9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["cost", "digits", "number_words"]
    parser.add_argument("--tables", nargs="*", choices=names, default=names)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=STEPS, default="cpu")
    parser.add_argument("--set", nargs="*", default=[])
    arguments = parser.parse_args()
    if "cost" in arguments.tables:
        costs(arguments)
    for recipe in ("digits", "number_words"):
        if recipe in arguments.tables:
            accuracies(recipe, arguments.set, arguments.seeds, arguments.folder)


def costs(arguments: argparse.Namespace) -> None:
    """Print processor seconds and memory of each variant, beside those of another."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    images = torch.randn(arguments.batch, 3, 32, 32).to(arguments.device)
    labels = torch.randint(0, 10, (arguments.batch,)).to(arguments.device)
    variants = {name: Variant(name, images, labels) for name in ("original", *AGAINST)}
    kept = {name: variant.kept_bytes() for name, variant in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(arguments.rounds + 1):
        for name, variant in variants.items():
            taken = seconds(variant.step, arguments.device)
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
