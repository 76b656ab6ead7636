"""Figures of small networks whose pictures are kept, and how a picture is compared with them.

The pictures in tests/baselines are made anew, and then have to be looked at, by

    python -m tests.figure_cases
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import torch
from torch import nn

import pathlen
from pathlen import PathGraph, Report, figures
from pathlen.training import CifarResNet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

matplotlib.use("Agg")

BASELINES = Path(__file__).parent / "baselines"
TOLERANCE = 3.0
"""Root of the mean square of the differences of colours from 0 to 255."""

DOTS = 80


def partly_linear(graph: PathGraph, part: float = 0.5) -> Report:
    """The same network with some channels of every activation layer linear, spread evenly."""
    activity = {}
    for row in pathlen.measure(graph).activation_layers:
        turn = np.arange(row.units) * part
        activity[row.name] = (np.floor(turn + part) == np.floor(turn)).astype(np.float64)
    return pathlen.measure(graph.with_activity(activity))


def perceptron() -> Report:
    layers = [
        nn.Linear(8, 12),
        nn.ReLU(),
        nn.Linear(12, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
        nn.ReLU(),
    ]
    return partly_linear(pathlen.trace(nn.Sequential(*layers, nn.Linear(5, 3)), torch.zeros(1, 8)))


def pruned_perceptron() -> Report:
    """Of 9 and 40 hidden units every third of the one and 10 of the other are dead."""
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 40), nn.ReLU(), nn.Linear(40, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[0].weight[::3] = 0
        model[2].weight[20:30] = 0
    return partly_linear(pathlen.trace(model, torch.zeros(1, 4), edges="weights"))


def residual_network() -> Report:
    return partly_linear(pathlen.trace(CifarResNet(depth=20), torch.zeros(1, 3, 32, 32)))


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into, self.act, self.out = (
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.out(self.act(self.into(x)))


def many_blocks(count: int) -> Report:
    blocks = nn.Sequential(*(Block(6, 8 + 7 * number % 30) for number in range(count)))
    return partly_linear(pathlen.trace(blocks, torch.zeros(1, 6)), 0.4)


def training_rows() -> list[dict[str, object]]:
    """Eight epochs of training, ten of linearization and three after it."""
    rows: list[dict[str, object]] = []
    for epoch in range(1, 22):
        phase = "train" if epoch <= 8 else "linearize" if epoch <= 18 else "finetune"
        done = min(max(epoch - 8, 0), 10) / 10
        rows.append(
            {
                "epoch": epoch,
                "phase": phase,
                "test_accuracy": 0.95 - 0.5 * 0.6**epoch - 0.1 * done**3,
                "active_units": round(688 * (1 - done) + 40 * done),
                "napl": 14.5 * (1 - done**2) + 1.0 * done**2,
            }
        )
    return rows


def tradeoff_runs() -> list[dict[str, object]]:
    """Two series of four settings with three seeds each."""
    return [
        {
            "series": series,
            "setting": omega,
            "napl": 12 * np.exp(-omega) + 0.2 * seed,
            "accuracy": quality - 0.02 * omega * (1 + 0.1 * seed),
        }
        for series, quality in (("late", 0.95), ("early", 0.93))
        for omega in (0.1, 0.5, 1.0, 2.0)
        for seed in range(3)
    ]


def trend_runs() -> list[dict[str, object]]:
    """Two series of three numbers of classes with four seeds each."""
    return [
        {
            "series": series,
            "classes": classes,
            "test_accuracy": 0.99 - slope * classes - 0.01 * (seed % 3),
            "napl": 1 + classes**0.5 + 0.1 * seed**2 + 30 * slope,
        }
        for series, slope in (("late", 0.01), ("early", 0.02))
        for classes in (2, 5, 10)
        for seed in range(4)
    ]


def omega_runs() -> list[dict[str, object]]:
    """Differences of accuracy for seven strengths of the prior, all but one with three seeds."""
    return [
        {"omega": omega, "accuracy": -0.02 + 0.03 * (omega / 2) ** 0.5 + 0.004 * (seed - 1)}
        for omega in (0.01, 0.02, 0.1, 0.2, 0.5, 1.0, 2.0)
        for seed in range(1 if omega == 0.1 else 3)
    ]


def case_runs() -> list[dict[str, object]]:
    """Three cases at two settings, one of them with a single run."""
    return [
        {
            "case": case,
            "setting": f"NAPL {part} %",
            "test_accuracy": 0.8 + part / 500 + 0.02 * place + 0.003 * (seed**2 - place),
        }
        for part in (25, 50)
        for place, case in enumerate(
            ("from the start", "after training, with distillation of the dense one", "pruned")
        )
        for seed in range(1 if case == "pruned" else 4)
    ]


def on_dark(draw: Callable[[], Axes]) -> Callable[[], Axes]:
    """The same with matplotlib's style for dark grounds."""

    def drawn() -> Axes:
        from matplotlib import pyplot

        with pyplot.style.context("dark_background"):
            return draw()

    return drawn


CASES: dict[str, Callable[[], Axes]] = {
    "core-perceptron": lambda: figures.plot_core_network(perceptron()),
    "core-pruned": lambda: figures.plot_core_network(pruned_perceptron(), order="channels"),
    "core-residual": lambda: figures.plot_core_network(residual_network(), scale="sqrt"),
    "core-200-blocks": lambda: figures.plot_core_network(many_blocks(200)),
    "path-lengths": lambda: figures.plot_path_lengths(residual_network()),
    "contributions": lambda: figures.plot_contributions(residual_network()),
    "contributions-200-blocks": lambda: figures.plot_contributions(many_blocks(200)),
    "widths": lambda: figures.plot_width_profile(pruned_perceptron()),
    "training": lambda: figures.plot_training(training_rows()),
    "tradeoff": lambda: figures.plot_tradeoff(tradeoff_runs()),
    "tradeoff-knee": lambda: figures.plot_tradeoff(
        tradeoff_runs(), knee={"late": (4.1, 3.2, 5.5), "early": (4.6, 3.9, 6)}
    ),
    "trend": lambda: figures.plot_trend(trend_runs(), x="classes", y=["test_accuracy", "napl"]),
    "trend-differences": lambda: figures.plot_trend(
        omega_runs(), x="omega", y="accuracy", log_x=True, zero=True
    ),
    "trend-dark": on_dark(lambda: figures.plot_trend(trend_runs(), x="classes", y="napl")),
    "cases": lambda: figures.plot_cases(case_runs(), reference="from the start"),
    "cases-dark": on_dark(lambda: figures.plot_cases(case_runs()[:9], reference="pruned")),
}


def picture(ax: Axes) -> bytes:
    """A figure as a small PNG; it is closed."""
    from matplotlib import pyplot

    file = io.BytesIO()
    ax.figure.savefig(file, format="png", dpi=DOTS, metadata={"Software": None})
    pyplot.close(ax.figure)
    return file.getvalue()


def drawn_labels(ax: Axes) -> list[Bbox]:
    """The boxes of the tick labels below the axes, from left to right."""
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    inside = [
        label
        for place, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
        if low <= place <= high and label.get_text()
    ]
    return [label.get_window_extent() for label in inside]


def difference(first: bytes, second: bytes) -> float:
    """How far two pictures are apart; infinitely, if they differ in size."""
    from matplotlib.image import imread

    pixels = [255 * imread(io.BytesIO(content))[..., :3] for content in (first, second)]
    if pixels[0].shape != pixels[1].shape:
        return float("inf")
    return float(np.sqrt(np.mean((pixels[0] - pixels[1]) ** 2)))


if __name__ == "__main__":
    for name, draw in CASES.items():
        (BASELINES / f"{name}.png").write_bytes(picture(draw()))
        print(BASELINES / f"{name}.png")
