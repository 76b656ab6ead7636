"""Size of the HTML report's page, and the time that a browser takes to draw it.

    python -m benchmarks.html_report [--tries N]

Needs Chromium and its driver. For each network: the number of its layers; the size of the page;
when the first paint, the graph and the charts were there, in seconds since the browser began to
load it, the best of a few tries in a fresh browser each; the processor time of the main thread of
the page for all of it, which depends less on what else the machine does; and the longest of
unfolding everything, searching and folding it again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pathlen
from pathlen.training import make_linearizable, slopes_of
from tests.browser import Page, chromium
from tests.vision import import_torchvision


class Block(nn.Module):
    """x + W2 relu(W1 x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


def networks() -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """Names, models and their inputs."""
    models = import_torchvision().models
    image = torch.zeros(1, 3, 224, 224)
    half = make_linearizable(models.resnet50().eval(), image)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for slopes in slopes_of(half):
            count = slopes.parameter.numel()
            slopes.parameter[torch.randperm(count, generator=generator)[: count // 2]] = 1
    yield "resnet50, half of the channels linear", half, image
    yield "resnet152", models.resnet152().eval(), image
    encoder = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
    transformer = nn.TransformerEncoder(encoder, 6, enable_nested_tensor=False).eval()
    yield "Transformer encoder of 6 layers", transformer, torch.zeros(1, 8, 64)
    yield "1,000 residual blocks", nn.Sequential(*map(Block, [8] * 1000)), torch.zeros(1, 8)
    yield "1,250 residual blocks", nn.Sequential(*map(Block, [8] * 1250)), torch.zeros(1, 8)


def times(page: Path) -> dict[str, float]:
    """What one fresh browser takes."""
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as driver:
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        driver.get("about:blank")
        before = processor_time(driver)
        opened = Page(driver, page)
        found: dict[str, float] = {"processor": processor_time(driver) - before}
        for name, entry in (
            ("first paint", "first-contentful-paint"),
            ("graph", "graph-drawn"),
            ("charts", "charts-drawn"),
        ):
            script = f"return performance.getEntriesByName('{entry}')[0].startTime / 1000"
            found[name] = opened.run(script)
        found["answer"] = opened.run(
            """
            const acts = [
              () => document.querySelector("#unfold").click(),
              () => pathlen.view.search("relu"),
              () => document.querySelector("#fold").click(),
            ];
            return Math.max(...acts.map((act) => {
              const start = performance.now();
              act();
              document.querySelector("#graph").getBoundingClientRect();
              return (performance.now() - start) / 1000;
            }));
            """
        )
        return found


def processor_time(driver: Any) -> float:
    """Seconds of processor time of the main thread's tasks so far."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(row["value"] for row in metrics if row["name"] == "TaskDuration")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=3, help="browsers to take the best of")
    tries = parser.parse_args().tries
    columns = ("first paint", "graph", "charts", "processor", "answer")
    print(f"| network | layers | MB | {' | '.join(columns)} |")
    print(f"|---|---|---|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, model, example in networks():
            report = pathlen.measure(model, example)
            page = Path(folder, "page.html")
            report.to_html(page, title=name)
            runs = [times(page) for _ in range(tries)]
            best = " | ".join(f"{min(run[column] for run in runs):.2f}" for column in columns)
            size = page.stat().st_size / 1e6
            print(f"| {name} | {len(report.layers):,} | {size:.2f} | {best} |", flush=True)


if __name__ == "__main__":
    main()
