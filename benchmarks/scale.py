"""How a measurement grows with the depth of a model, and what a very large one takes.

Each row is a process of its own, so that the peak memory is the row's. After the rows of a family:
the exponent p of CPU seconds ~ depth^p, fitted to all of them.

    python benchmarks/scale.py [--rows perceptron,resnet,llama70b] [--write docs/scale.md]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # in place of this folder, whose coverage.py would hide the package

from benchmarks.plot import exponent, log_log  # noqa: E402 - after the path is set

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
    start, processor = time.perf_counter(), time.process_time()
    report = pathlen.measure(model, args, kwargs)
    processor = time.process_time() - processor
    return {
        "model": family,
        "depth": depth,
        "seconds": time.perf_counter() - start,
        "CPU s": processor,
        **{stage: report.seconds[stage] for stage in ("trace", "lower", "solve")},
        "nodes": report.graph.num_nodes,
        "napl": report.normalized_average_path_length,
        "MiB before": before // 1024,
        "MiB peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def write_page(page: Path, families: dict[str, list[dict[str, Any]]]) -> None:
    """A table of all rows, and a plot of those families that have several depths."""
    names = list(next(iter(families.values()))[0])
    rows = [row for found in families.values() for row in found]
    table = ["| " + " | ".join(line) + " |" for line in (names, ["---"] * len(names))]
    table += ["| " + " | ".join(_shown(row[name]) for name in names) + " |" for row in rows]
    curves = {name: _curve(found) for name, found in families.items() if len(found) > 1}
    labels = {f"{name}: CPU seconds ~ depth^{exponent(c):.2f}": c for name, c in curves.items()}
    plot = log_log(
        "Processor time of a whole measurement", "depth (layers, blocks)", "CPU seconds", labels
    )
    picture = page.parent / "images" / "scale.svg"
    picture.write_text(plot)
    page.write_text(_PAGE.format(table="\n".join(table)))


_PAGE = """\
# Size and depth

What `python benchmarks/scale.py` measured: models of growing depth, and one of the shapes of
Llama 3 70B on the meta device, each in a process of its own, on one thread. Seconds are those of
all of `pathlen.measure` and of its stages, "CPU s" the processor time, which other work on the
machine touches less, and which the curves show; "MiB peak" is the resident memory of the whole
process, "MiB before" what of that the libraries and the model take.

![Seconds against depth](images/scale.svg)

{table}

Exponents are fitted by least squares to the logarithms.
"""


def _curve(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(row["depth"], row["CPU s"]) for row in rows]


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--one", nargs=2, metavar=("FAMILY", "DEPTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_row(options.one[0], int(options.one[1]))))
        return
    families: dict[str, list[dict[str, Any]]] = {}
    for family in options.rows.split(","):
        rows = families.setdefault(family, [])
        for depth in ROWS[family]:
            command = [sys.executable, __file__, "--one", family, str(depth)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            print("  ".join(f"{name} {_shown(value)}" for name, value in row.items()))
        if len(rows) > 1:
            print(f"{family}: CPU seconds ~ depth^{exponent(_curve(rows)):.2f}")
    if options.write:
        write_page(options.write, families)


if __name__ == "__main__":
    main()
