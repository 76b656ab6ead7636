"""What a model is worth on the items held out, and how deep it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pathlen import measure
from pathlen.training.batch_norm import renew_batch_norm
from pathlen.training.batches import held_out_batches, train_batches
from pathlen.training.run import Run
from pathlen.training.tasks.translation import evaluating

ACTIVATION = {"cpu": 2**23}
"""Bytes that the largest activation of a batch may have: a CPU's cache holds a few of them."""

ACTIVATION_ELSEWHERE = 2**30

SMALLEST, LARGEST, OTHERWISE = 32, 4096, 512
"""Items of a batch: at least, at most, and where an example does not tell how large items are."""


def evaluate(run: Run) -> dict[str, float]:
    """Mean loss and accuracy over the items held out, shared by all processes."""
    fabric, task, settings = run.fabric, run.task, run.recipe
    sums = torch.zeros(3, dtype=torch.float64, device=fabric.device)
    with inferring(run.model):
        for batch in held_out_batches(
            task,
            settings.test_batch_size or sensible_batch(run.model, task.example, fabric.device),
            rank=fabric.global_rank,
            processes=fabric.world_size,
            workers=settings.machine.workers,
            device=fabric.device,
        ):
            output = run.forward(run.model, run.inputs(batch))
            right, count = task.counts(output, batch)
            sums += torch.stack([task.loss(output, batch, 0.0) * count, right, count])
    total_loss, total_right, total = added_up(run, sums)
    return {"test_loss": total_loss / total, "test_accuracy": total_right / total}


def renew_statistics(run: Run) -> None:
    """Bring the statistics of batch norms up to the slopes, where the recipe says so."""
    fabric, recipe = run.fabric, run.recipe
    made = train_batches(
        run.task,
        recipe.batch_size,
        recipe.seed,
        run.position.epoch,
        rank=fabric.global_rank,
        processes=fabric.world_size,
        device=fabric.device,
    )
    chosen = itertools.islice(made, recipe.linearize.batch_norm_batches)
    renew_batch_norm(run.model, (run.inputs(batch) for batch in chosen), run.forward)


@contextmanager
def inferring(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and torch in inference mode, for a while.

    What modules keep of it for later, such as tables of positions, can be trained with afterwards.
    """
    with evaluating(model):
        with torch.inference_mode():
            yield
        for module in model.modules():
            for kept in (module._buffers, vars(module)):
                for name, value in kept.items():
                    if isinstance(value, Tensor) and value.is_inference():
                        kept[name] = value.clone()


@torch.no_grad()
def sensible_batch(model: nn.Module, example: Sequence[Tensor], device: torch.device) -> int:
    """Items to evaluate at once: a power of two that suits the largest activation of the model.

    Args:
        model: It is run once on the example, in eval mode.
        example: A batch of one item, on any device.
        device: Where the model is.

    Returns:
        512 where an argument holds integers: texts are of any length.
    """
    if not all(one.is_floating_point() for one in example):
        return OTHERWISE
    largest = 1

    def look(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with evaluating(model):
            dtype = next((p.dtype for p in model.parameters()), torch.float32)
            model(*(one.to(device, dtype) for one in example))
    finally:
        for hook in hooks:
            hook.remove()
    fitting = ACTIVATION.get(device.type, ACTIVATION_ELSEWHERE) // largest
    return min(max(1 << fitting.bit_length() >> 1, SMALLEST), LARGEST)


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
