"""What a model is worth on the items held out, and how deep it is."""

from __future__ import annotations

from typing import Any

import torch

from pathlen import measure
from pathlen.training.batches import held_out_batches
from pathlen.training.run import Run
from pathlen.training.tasks.translation import evaluating


@torch.no_grad()
def evaluate(run: Run) -> dict[str, float]:
    """Mean loss and accuracy over the items held out, shared by all processes."""
    fabric, task, settings = run.fabric, run.task, run.recipe
    sums = torch.zeros(3, dtype=torch.float64, device=fabric.device)
    with evaluating(run.model):
        for batch in held_out_batches(
            task,
            settings.test_batch_size,
            rank=fabric.global_rank,
            processes=fabric.world_size,
            workers=settings.machine.workers,
            device=fabric.device,
        ):
            output = run.forward(run.model, task.inputs(batch))
            right, count = task.counts(output, batch)
            sums += torch.stack([task.loss(output, batch, 0.0) * count, right, count])
    total_loss, total_right, total = added_up(run, sums)
    return {"test_loss": total_loss / total, "test_accuracy": total_right / total}


@torch.no_grad()
def decode(run: Run) -> dict[str, float]:
    """What takes longer than a forward pass, such as BLEU; by the first process alone."""
    if run.task.decode is None:
        return {}
    found: dict[str, float] = {}
    if run.fabric.global_rank == 0:
        found = run.task.decode(run.model, run.task.test, run.fabric.device)
    return dict(run.fabric.broadcast(found))


def width(run: Run) -> dict[str, float]:
    """The effective width, for which the model is traced anew: at the end of a phase only."""
    report = measure(run.model, run.fabric.to_device(run.task.example))
    return {"effective_width": float(report.effective_width)}


def added_up(run: Run, sums: torch.Tensor) -> list[float]:
    """Sums over all processes, as numbers."""
    return run.sum_over_processes(sums).tolist()


def depth(run: Run) -> dict[str, Any]:
    """Depth of the model as it is."""
    reading = run.monitor.update()
    return {
        "active_units": reading.num_active,
        "apl": reading.average_path_length,
        "napl": reading.normalized_average_path_length,
    }
