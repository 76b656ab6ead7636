"""What training under the prior costs, and what is left of the accuracy.

    python benchmarks/training.py [--tables cost loop digits number_words] [--rounds 7]
        [--batch 128] [--threads 1] [--device cpu] [--seeds 0 1 2] [--set KEY=VALUE ...]
        [--folder runs/benchmark]

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

Table `loop`: the whole step (batch, augmentation, forward, backward, optimizer, metrics) of the
same network on random bytes of CIFAR-10's shape, beside the loop that one writes by hand: images
augmented one by one through a `DataLoader`, channels first. Seconds and ratios as above.

- `batches`: making the augmented batches alone, of the loop by hand and of the task
- `train`, `linearize`: a step of `pathlen.training.train` in that phase, with half of the depth by
  a plan in the latter; `--set machine.compile=true` and the like change pathlen's
- `evaluate`: a batch held out, as after an epoch, beside a loop in eval mode under `no_grad`
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

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
    make_recipe,
    parameter_groups,
    slopes_of,
    train,
)
from pathlen.training.batches import train_batches  # noqa: E402
from pathlen.training.evaluate import evaluate  # noqa: E402
from pathlen.training.loop import train_epoch  # noqa: E402
from pathlen.training.recipe_file import read_override, set_value  # noqa: E402
from pathlen.training.run import Run, make_fabric  # noqa: E402
from pathlen.training.run_folder import RunFolder  # noqa: E402
from pathlen.training.stop_requests import Requests  # noqa: E402
from pathlen.training.tasks.classification import ImageSet, image_task  # noqa: E402
from pathlen.training.watch import Watcher  # noqa: E402

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


def seconds(function: Callable[[], None], device: str, calls: int | None = None) -> float:
    """Processor seconds of one call, or seconds by the clock of one on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    calls = calls or STEPS[device]
    start = clock()
    for _ in range(calls):
        function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / calls


MEAN, DEVIATION = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])
TOGETHER = 4
"""Steps of table `loop` that are timed together; an epoch has as many."""


class Plain(Dataset[tuple[Tensor, int]]):
    """Images padded, cropped at random and mirrored one by one, as one writes it by hand."""

    def __init__(self, images: Tensor, classes: Tensor, augmented: bool) -> None:
        self.images, self.classes, self.augmented = images, classes.tolist(), augmented

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.augmented:
            padded = nn.functional.pad(image, (4, 4, 4, 4))
            down, right = torch.randint(0, 9, (2,)).tolist()
            image = padded[:, down : down + 32, right : right + 32]
            image = image.flip(2) if torch.rand(()) < 0.5 else image
        image = (image / 255 - MEAN[:, None, None]) / DEVIATION[:, None, None]
        return image, self.classes[index]


class ByHand:
    """The loop that one writes by hand."""

    def __init__(self, images: Tensor, classes: Tensor, batch: int, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.loader = DataLoader(Plain(images, classes, True), batch, shuffle=True, drop_last=True)
        self.test = DataLoader(Plain(images, classes, False), batch)
        self.model = CifarResNet(20).to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
        )

    def batches(self) -> None:
        for _ in self.loader:
            pass

    def train(self) -> None:
        self.model.train()
        losses = right = 0.0
        for images, classes in self.loader:
            images, classes = images.to(self.device), classes.to(self.device)
            output = self.model(images)
            loss = nn.functional.cross_entropy(output, classes)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses += loss.item() * len(images)
            right += (output.argmax(1) == classes).sum().item()

    @torch.no_grad()
    def evaluate(self) -> None:
        self.model.eval()
        losses = right = 0.0
        for images, classes in self.test:
            images, classes = images.to(self.device), classes.to(self.device)
            output = self.model(images)
            losses += nn.functional.cross_entropy(output, classes).item() * len(images)
            right += (output.argmax(1) == classes).sum().item()


class ByPathlen:
    """Epochs of `pathlen.training.train`, in the phase of a name."""

    def __init__(
        self, phase: str, images: Tensor, classes: Tensor, arguments: argparse.Namespace
    ) -> None:
        pixels, labels = images.numpy(), classes.numpy()
        data = ImageSet(pixels, labels, MEAN, DEVIATION, shift=4, flip=True)
        held_out = ImageSet(pixels, labels, MEAN, DEVIATION)
        settings: dict[str, Any] = {
            "task": {"name": "random"},
            "model": {"name": "resnet20"},
            "batch_size": arguments.batch,
            "machine": {"accelerator": arguments.device, "threads": arguments.threads},
            phase: {"epochs": 10_000, "learning_rate": 0.01},
        }
        if phase == "linearize":
            settings[phase]["prior"] = {"omega": 0.1, "target_napl": "50 %", "pace": {}}
        for override in arguments.set:
            set_value(settings, *read_override(override), where="--set")
        recipe = make_recipe(settings)
        task = image_task("random", data, held_out, 10)
        self.run = Run(recipe, make_fabric(recipe), task)
        self.folder = tempfile.TemporaryDirectory()
        self.home = RunFolder(Path(self.folder.name), recipe)
        self.run.enter_stage()

    def batches(self) -> None:
        run = self.run
        for _ in self._made(run):
            pass

    def _made(self, run: Run) -> Iterator[Any]:
        place, device = run.position, run.fabric.device
        return train_batches(run.task, run.recipe.batch_size, 0, place.epoch, device=device)

    def train(self) -> None:
        with Requests() as requests:
            train_epoch(self.run, Watcher(), requests, self.home)
        position = self.run.position
        position.batch, position.epoch = 0, position.epoch + 1
        position.stage_epoch += 1
        self.run.start_counting()

    def evaluate(self) -> None:
        evaluate(self.run)


def timed(kind: str, arguments: argparse.Namespace, pipe: Connection) -> None:
    """Be asked for the name of a function, and answer with its seconds a step, until None comes."""
    torch.set_num_threads(arguments.threads)
    random = numpy.random.default_rng(0)
    size = TOGETHER * arguments.batch
    images = torch.from_numpy(random.integers(0, 256, (size, 3, 32, 32), dtype=numpy.uint8))
    classes = torch.from_numpy(random.integers(0, 10, size))
    loop: Any
    if kind == "by hand":
        loop = ByHand(images, classes, arguments.batch, arguments.device)
    else:
        loop = ByPathlen(kind, images, classes, arguments)
    while (name := pipe.recv()) is not None:
        pipe.send(seconds(getattr(loop, name), arguments.device, 1) / TOGETHER)


def loops(arguments: argparse.Namespace) -> None:
    """Print seconds of whole steps, beside those of a loop written by hand.

    Each kind has a process of its own, since pathlen lets its own keep memory; they take turns.
    """
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for kind in ("by hand", "train", "linearize"):
        pipes[kind], other = context.Pipe()
        context.Process(target=timed, args=(kind, arguments, other), daemon=True).start()

    def asked(kind: str, name: str) -> float:
        pipes[kind].send(name)
        answer: float = pipes[kind].recv()
        return answer

    rows = {
        "batches": ("train", "batches"),
        "train": ("train", "train"),
        "linearize": ("linearize", "train"),
        "evaluate": ("train", "evaluate"),
    }
    for row, (kind, name) in rows.items():
        pairs = []
        for turn in range(arguments.rounds + 1):
            pair = asked("by hand", name), asked(kind, name)
            if turn:  # the first one warms up
                pairs.append(pair)
        hand, own = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(two / one for one, two in pairs)
        print(f"{row:<10} by hand {hand:.4f} s  pathlen {own:.4f} s  {ratio:.3f} x", flush=True)
    for pipe in pipes.values():
        pipe.send(None)


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
    names = ["cost", "loop", "digits", "number_words"]
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
    if "loop" in arguments.tables:
        loops(arguments)
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
