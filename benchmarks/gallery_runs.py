"""Trains the networks whose depth and accuracy the gallery of figures shows.

    python -m benchmarks.gallery_runs runs/gallery

A residual network of 8 layers learns handwritten digits and is linearized to several depths, after
training and from the start, with two seeds each: 16 runs and a longer one, 10 minutes on one core.
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

# Without distillation, so that both series can learn from nothing but the data.
_BASE = (
    "model.name=resnet8",
    "linearize.prior.omega=0.05",
    "linearize.prior.schedule={name: constant}",
    "linearize.distillation=null",
    "finetune.epochs=2",
)


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
                    f"train.epochs={dense}",
                    f"linearize.epochs={EPOCHS - dense}",
                    f"linearize.prior.target_napl={target}",
                    f"seed={seed}",
                )
    _train(
        root / LONG,
        "model.name=resnet20",
        "train.epochs=12",
        "linearize.epochs=20",
        "linearize.prior.target_napl=1.0",
        "finetune.epochs=8",
    )


def _train(folder: Path, *overrides: str) -> None:
    """One run of the bundled recipe, with other values."""
    if (folder / "summary.json").exists():
        return
    result = train(load_recipe("digits", [*_BASE, *overrides]), folder)
    last = result.history[-1]
    print(
        f"{folder.name}: NAPL {last['napl']:.3f}, accuracy {last['test_accuracy']:.2%}", flush=True
    )


if __name__ == "__main__":
    carry_out(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/gallery"))
