"""How a measurement grows with the depth of a model, and what a very large one takes.

Each row is a process of its own, so that the peak memory is the row's. After the rows of a family:
the exponent p of seconds ~ depth^p, fitted to all of them.

    python benchmarks/scale.py [--rows perceptron,resnet,llama70b]
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "perceptron": [250, 500, 1000, 2000],
    "resnet": [125, 250, 500, 1000],
    "llama70b": [80],
}


def perceptron(depth: int) -> tuple[Any, Any, dict[str, Any]]:
    """A perceptron with `depth` hidden ReLU layers of 16 units: APL = NAPL = depth."""
    import torch
    from torch import nn

    layers = [part for _ in range(depth) for part in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(1, 16), {}


def resnet(depth: int) -> tuple[Any, Any, dict[str, Any]]:
    """A residual network of `depth` blocks of two convolutions: NAPL = depth / 2."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.two(torch.relu(self.one(x)))

    return nn.Sequential(*[Block() for _ in range(depth)]), torch.randn(1, 8, 8, 8), {}


def llama70b(depth: int) -> tuple[Any, Any, dict[str, Any]]:
    """The shapes of Llama 3 70B on the meta device, eight tokens: NAPL = depth / 4."""
    import torch

    from tests.vision import import_torchvision

    import_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=depth,
        num_attention_heads=64,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        tokens = torch.zeros(1, 8, dtype=torch.long)
    return model, None, {"input_ids": tokens, "use_cache": False}


FAMILIES: dict[str, Callable[[int], tuple[Any, Any, dict[str, Any]]]] = {
    "perceptron": perceptron,
    "resnet": resnet,
    "llama70b": llama70b,
}


def measure_row(family: str, depth: int) -> dict[str, Any]:
    """Measure one model in this process, warm: a small one has been measured before."""
    import torch

    import pathlen

    torch.set_num_threads(1)
    small, example, _ = perceptron(2)
    pathlen.measure(small, example)
    model, args, kwargs = FAMILIES[family](depth)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    report = pathlen.measure(model, args, kwargs)
    return {
        "model": family,
        "depth": depth,
        "seconds": time.perf_counter() - start,
        **{stage: report.seconds[stage] for stage in ("trace", "lower", "solve")},
        "nodes": report.graph.num_nodes,
        "napl": report.normalized_average_path_length,
        "MiB before": before // 1024,
        "MiB peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def exponent(rows: list[dict[str, Any]]) -> float:
    """Least-squares slope of log seconds over log depth."""
    xs = [math.log(row["depth"]) for row in rows]
    ys = [math.log(row["seconds"]) for row in rows]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--one", nargs=2, metavar=("FAMILY", "DEPTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path[0] = str(ROOT)  # in place of this folder, whose coverage.py would hide the package
    if options.one:
        print(json.dumps(measure_row(options.one[0], int(options.one[1]))))
        return
    for family in options.rows.split(","):
        rows = []
        for depth in ROWS[family]:
            command = [sys.executable, __file__, "--one", family, str(depth)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            shown = (
                f"{value:.2f}" if isinstance(value, float) else value for value in row.values()
            )
            print("  ".join(f"{name} {value}" for name, value in zip(row, shown, strict=True)))
        if len(rows) > 1:
            print(f"{family}: seconds ~ depth^{exponent(rows):.2f}")


if __name__ == "__main__":
    main()
