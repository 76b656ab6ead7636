"""How long a reading of the depth takes, beside a whole measurement and a training step.

For each model, in one process: the median of many calls of `DepthMonitor.update`, with all slopes
changed before each, the median of some calls of `pathlen.measure`, and the ratio of the two.

    python benchmarks/monitor.py [--calls 1000] [--measures 5] [--threads 1] [--device cpu]
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
from torch import nn

# In place of this folder, whose coverage.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import pathlen  # noqa: E402
from tests.slopes import Blend, with_slopes  # noqa: E402
from tests.vision import import_torchvision  # noqa: E402


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def slopes_of(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of all PReLUs and blends."""
    return [m.weight for m in model.modules() if isinstance(m, (nn.PReLU, Blend))]


def models() -> dict[str, nn.Module]:
    """ResNet-50 as it is, and with three kinds of slopes."""
    resnet50 = import_torchvision().models.resnet50
    return {
        "resnet50": resnet50(),
        "one slope a call site": with_slopes(resnet50(), lambda channels: nn.PReLU()),
        "a PReLU slope a channel": with_slopes(resnet50(), nn.PReLU),
        "a blend a channel": with_slopes(resnet50(), Blend),
    }


def main() -> None:
    """Print the table, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--measures", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    example = torch.empty(1, 3, 224, 224, device=options.device)
    print(
        f"{'resnet50 with':26}{'slopes':>8}{'update us':>11}{'p90 us':>9}{'measure ms':>12}{'x':>8}"
    )
    results = {}
    for name, model in models().items():
        model.to(options.device)
        slopes = slopes_of(model)
        monitor = pathlen.DepthMonitor(model, example)
        updates = []
        for _ in range(options.calls):
            with torch.no_grad():
                for slope in slopes:
                    slope.uniform_().round_()
            updates.append(seconds(monitor.update))
        measures = [
            seconds(lambda m=model: pathlen.measure(m, example)) for _ in range(options.measures)
        ]
        difference = abs(
            monitor.update().average_path_length
            - pathlen.measure(model, example).average_path_length
        )
        result = {
            "slopes": sum(slope.numel() for slope in slopes),
            "update_us": 1e6 * statistics.median(updates),
            "update_p90_us": 1e6 * sorted(updates)[len(updates) * 9 // 10],
            "measure_ms": 1e3 * statistics.median(measures),
            "difference": difference,
        }
        result["ratio"] = 1e3 * result["measure_ms"] / result["update_us"]
        results[name] = result
        print(
            f"{name:26}{result['slopes']:8}{result['update_us']:11.1f}{result['update_p90_us']:9.1f}"
            f"{result['measure_ms']:12.1f}{result['ratio']:8.0f}"
        )
    settings = {"threads": options.threads, "device": options.device, "torch": torch.__version__}
    print(json.dumps(settings | results))


if __name__ == "__main__":
    main()
