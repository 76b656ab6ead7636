"""Draws the pictures of docs/figures.md.

    python -m benchmarks.gallery_runs runs/gallery
    python -m benchmarks.gallery runs/gallery

The first command trains the networks of the pictures of runs; without it these stay as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pathlen
from benchmarks.gallery_runs import (
    CLASSES,
    LONG,
    SEEDS,
    SERIES,
    SMALL_SEEDS,
    TARGETS,
    folder_of,
    small_folder,
)
from pathlen import PathGraph, Report, figures
from pathlen.figures.runs import rows_of
from tests.vision import import_torchvision

IMAGES = Path(__file__).parent.parent / "docs" / "images" / "figures"
_DOTS = 200


def thinned(graph: PathGraph, first: float, last: float) -> Report:
    """The network with channels active at random, fewer or more of them from layer to layer."""
    random = np.random.default_rng(0)
    rows = pathlen.measure(graph).activation_layers
    parts = np.linspace(first, last, len(rows))
    return pathlen.measure(
        graph.with_activity(
            {
                row.name: (random.random(row.units) < part).astype(np.float64)
                for row, part in zip(rows, parts, strict=True)
            }
        )
    )


def pruned() -> Report:
    """A perceptron that lost the smallest 80 % of its weights, half of whose units are linear."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(16, 28), nn.ReLU(), nn.Linear(28, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU()),
        nn.Linear(12, 4),
    )
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                least = layer.weight.abs().flatten().kthvalue(int(0.9 * layer.weight.numel()))[0]
                layer.weight[layer.weight.abs() <= least] = 0
    return thinned(pathlen.trace(model, torch.zeros(1, 16), edges="weights"), 0.5, 0.5)


class Block(nn.Module):
    """x + W2 relu(W1 x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.out(torch.relu(self.into(x)))


def draw_reports() -> None:
    """The pictures of single networks."""
    import_torchvision()
    import torchvision

    image = torch.zeros(1, 3, 224, 224)
    resnet = thinned(pathlen.trace(torchvision.models.resnet50().eval(), image), 0.5, 0.5)
    for plot in ("core_network", "path_lengths", "contributions", "width_profile"):
        _save(getattr(figures, f"plot_{plot}")(resnet), plot)
    transformer = nn.Transformer(64, 4, 4, 4, 256, batch_first=True).eval()
    sentences = torch.zeros(1, 6, 64), torch.zeros(1, 5, 64)
    _save(
        figures.plot_core_network(thinned(pathlen.trace(transformer, sentences), 0.9, 0.2)),
        "core_transformer",
    )
    _save(figures.plot_core_network(pruned(), order="channels"), "core_pruned")
    deep = nn.Sequential(*(Block(16, 16 + place % 50) for place in range(200)))
    _save(
        figures.plot_core_network(thinned(pathlen.trace(deep, torch.zeros(1, 16)), 0.9, 0.1)),
        "core_deep",
    )


def draw_runs(root: Path) -> None:
    """The pictures of training."""
    _save(figures.plot_training(root / LONG), "training")
    runs = [
        {**rows_of(folder_of(root, series, target, seed))[-1], "series": series, "setting": target}
        for series in SERIES
        for target in TARGETS
        for seed in SEEDS
    ]
    _save(figures.plot_tradeoff(runs), "tradeoff")


def draw_knee() -> None:
    """The example of docs/figures.md."""
    runs = [(9.0, 95.1), (6.2, 94.9), (4.1, 94.2), (2.9, 92.8), (1.9, 86.0), (0.8, 61.5)]
    _save(figures.plot_tradeoff(runs, metric="accuracy (%)", knee=(2.9, 2.2, 3.8)), "knee")


def draw_small_runs(root: Path) -> None:
    """The pictures of trends and of cases."""
    runs = [
        {
            **rows_of(small_folder(root, series, classes, seed))[-1],
            "series": series,
            "case": series,
            "setting": f"{classes} digits",
            "classes": classes,
        }
        for classes in CLASSES
        for series in SERIES
        for seed in SMALL_SEEDS
    ]
    _save(figures.plot_trend(runs, x="classes", y=["test_accuracy", "test_loss"]), "trend")
    _save(figures.plot_cases(runs, reference="linearized after training"), "cases")


def _save(ax: object, name: str) -> None:
    """Write a picture to the documentation."""
    from matplotlib import pyplot

    IMAGES.mkdir(parents=True, exist_ok=True)
    figures.save(ax, IMAGES / f"{name}.png", dpi=_DOTS, metadata={"Software": None})
    pyplot.close("all")
    print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    draw_reports()
    draw_knee()
    if len(sys.argv) > 1:
        draw_small_runs(Path(sys.argv[1]))
        draw_runs(Path(sys.argv[1]))
