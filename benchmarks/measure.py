"""How long a measurement takes, beside what else one runs on a model.

For each model, in one process and interleaved: the stages of `pathlen.measure`, one
`torch.export.export(strict=False)`, torchinfo's summary, and one forward pass. Medians over the
rounds; the ratio in the last column is the whole of `measure` to `torch.export` alone.

    python benchmarks/measure.py [--rounds 5] [--threads 1] [model ...]
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# In place of this folder, whose coverage.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import pathlen  # noqa: E402
from tests.vision import import_torchvision  # noqa: E402

MODELS = ("resnet18", "resnet50", "densenet121", "vit_b_16")
STAGES = ("trace", "lower", "solve")


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def rounds_of(model: torch.nn.Module, rounds: int) -> dict[str, list[float]]:
    """Seconds of every stage and rival in each round; one more round before them warms up."""
    import torchinfo

    example = torch.randn(1, 3, 224, 224)
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        start = time.perf_counter()
        report = pathlen.measure(model, example)
        measured = {
            "measure": time.perf_counter() - start,
            "export": seconds(lambda: torch.export.export(model, (example,), strict=False)),
            "torchinfo": seconds(
                lambda: torchinfo.summary(model, input_data=example, verbose=0, device="cpu")
            ),
            "forward": seconds(lambda: forward(model, example)),
        }
        measured |= {stage: report.seconds[stage] for stage in STAGES}
        for name, value in measured.items():
            if number:
                times.setdefault(name, []).append(value)
    return times


def forward(model: torch.nn.Module, example: torch.Tensor) -> None:
    """One forward pass without gradients."""
    with torch.no_grad():
        model(example)


def main() -> None:
    """Print the table, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    torchvision = import_torchvision()
    columns = [*STAGES, "measure", "export", "torchinfo", "forward"]
    print(f"{'model':14}" + "".join(f"{name:>11}" for name in columns) + f"{'ratio':>8}")
    results = {}
    for name in options.models:
        model = torchvision.models.get_model(name, weights=None).eval()
        times = rounds_of(model, options.rounds)
        medians = {column: statistics.median(times[column]) for column in columns}
        pairs = zip(times["measure"], times["export"], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        results[name] = {**medians, "measure / export": ratio}
        shown = "".join(f"{medians[column]:11.3f}" for column in columns)
        print(f"{name:14}{shown}{ratio:8.2f}", flush=True)
    print(json.dumps({"torch": torch.__version__, "threads": options.threads, **results}))


if __name__ == "__main__":
    main()
