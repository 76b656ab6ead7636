"""Trains the networks whose depth and accuracy the gallery of figures shows.

    python -m benchmarks.gallery_runs runs/gallery

A residual network of 8 layers learns handwritten digits and is linearized to several depths, after
training and from the start, with two seeds each: 16 runs and a longer one, 10 minutes on one core.
Perceptrons do the same with 2, 5 and 10 of the digits and five seeds: 30 runs, 3 minutes.
Runs that are there already are not repeated.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pathlen.training.loop import train
from pathlen.training.recipe_file import load_recipe

TARGETS = (0.5, 1.0, 2.0, 3.5)
SEEDS = (0, 1)
SERIES = {"linearized after training": 10, "linearized from the start": 0}
EPOCHS = 20
LONG = "long"

CLASSES = (2, 5, 10)
SMALL_SEEDS = range(5)
SMALL_EPOCHS = 8

# Without distillation, so that both series can learn from nothing but the data.
_BASE = (
    "model.name=resnet8",
    "linearize.prior.omega=0.05",
    "linearize.prior.pace=null",
    "linearize.distillation=null",
    "finetune.distillation=null",
    "finetune.epochs=2",
)

_SMALL = (
    "model.name=mlp",
    "model.width=16",
    "model.depth=4",
    "batch_size=16",
    "optimizer.learning_rate=0.02",
    "linearize.learning_rate=0.02",
    "linearize.prior.omega=0.2",
    "linearize.prior.target_napl=25 %",
    "linearize.prior.pace=null",
    "linearize.distillation=null",
    "finetune.distillation=null",
    "finetune.epochs=2",
)


def small_folder(root: Path, series: str, classes: int, seed: int) -> Path:
    """Where a run of a perceptron is kept."""
    return root / f"small-{series.replace(' ', '-')}-{classes}-{seed}"


def folder_of(root: Path, series: str, target: float, seed: int) -> Path:
    """Where a run is kept."""
    return root / f"{series.replace(' ', '-')}-{target}-{seed}"


def carry_out(root: Path) -> None:
    """Every run that is not there yet."""
    for series, dense in SERIES.items():
        for target in TARGETS:
            for seed in SEEDS:
                _train(
                    folder_of(root, series, target, seed),
                    *_BASE,
                    f"train.epochs={dense}",
                    f"linearize.epochs={EPOCHS - dense}",
                    f"linearize.prior.target_napl={target}",
                    f"seed={seed}",
                )
    _train(
        root / LONG,
        *_BASE,
        "model.name=resnet20",
        "train.epochs=12",
        "linearize.epochs=20",
        "linearize.prior.target_napl=1.0",
        "finetune.epochs=8",
    )


def carry_out_small(root: Path) -> None:
    """Every run of a perceptron that is not there yet."""
    for classes in CLASSES:
        for series, dense in SERIES.items():
            for seed in SMALL_SEEDS:
                epochs = SMALL_EPOCHS if dense else 0
                _train(
                    small_folder(root, series, classes, seed),
                    *_SMALL,
                    f"task.classes={classes}",
                    f"train.epochs={epochs}",
                    f"linearize.epochs={2 * SMALL_EPOCHS - epochs}",
                    f"seed={seed}",
                )


def _train(folder: Path, *overrides: str) -> None:
    """One run of the bundled recipe, with other values."""
    if (folder / "summary.json").exists():
        return
    result = train(load_recipe("digits", list(overrides)), folder)
    last = result.history[-1]
    print(
        f"{folder.name}: NAPL {last['napl']:.3f}, accuracy {last['test_accuracy']:.2%}", flush=True
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/gallery")
    carry_out_small(folder)
    carry_out(folder)
