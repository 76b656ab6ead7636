"""The training loop: phases of epochs of steps, and a checkpoint after which nothing is lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathlen.errors import ActivityError, CheckpointError, TrainingError
from pathlen.training.batches import seed_step, train_batches
from pathlen.training.evaluate import added_up, decode, depth, evaluate, renew_statistics, width
from pathlen.training.folder_lock import FolderLock
from pathlen.training.groups import warn_of_decay
from pathlen.training.libraries import library
from pathlen.training.process_settings import settings_put_back
from pathlen.training.recipe import Recipe
from pathlen.training.run import LOOK, Run, make_fabric, versions
from pathlen.training.run_folder import RunFolder
from pathlen.training.stop_requests import Requests
from pathlen.training.targets import CLOSE
from pathlen.training.task import Batch
from pathlen.training.tasks import build_task
from pathlen.training.watch import Watcher


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        folder: Where everything is.
        summary: What summary.json holds.
        history: One row an epoch.
    """

    folder: Path
    summary: Mapping[str, Any]
    history: list[dict[str, Any]]


@settings_put_back()
def train(
    recipe: Recipe,
    folder: Path | str,
    watcher: Watcher | None = None,
    *,
    wait: bool = False,
    lock: FolderLock | None = None,
) -> Result:
    """Carry out a recipe, or go on where an earlier call stopped.

    What a run computes is a function of its recipe: a run that was killed and goes on ends with the
    same weights, slopes and metrics, bit for bit, on the same machine. It has the process for
    itself: it seeds the generators of random numbers, which are put back in the end, and so are
    `machine.threads` and `machine.deterministic`.

    Args:
        recipe: What to do.
        folder: Of the run; see :mod:`pathlen.training.run_folder`.
        watcher: Receives progress.
        wait: Whether to wait while another process works in the folder.
        lock: Of the folder, if the caller has locked it, which it stays.

    Raises:
        SettingsError: The recipe does not fit its task or model, or the folder holds another run.
        DataError: Files of the task are missing.
        TrainingError: The loss is not finite. The last checkpoint is kept.
        CheckpointError: A checkpoint cannot be written or read or is of another run, or another
            process works in the folder.
        KeyboardInterrupt: The run was asked to stop (SIGINT or SIGTERM), and is saved.
    """
    if recipe.tensorboard:
        library("tensorboard", "tensorboard")
    home = RunFolder(Path(folder), recipe, lock)
    fabric = make_fabric(recipe)
    first = fabric.global_rank == 0
    watcher = watcher if watcher and first else Watcher()
    task = build_task(recipe.task)
    run = Run(recipe, fabric, task)
    try:
        if first:
            home.begin(task.artifacts, wait, watcher.say)
        fabric.barrier()
        for note in task.notes:
            watcher.say(note)
        _go_on(run, home, watcher)
        with Requests() as requests:
            while not run.finished:
                train_stage(run, home, watcher, requests)
        return _finish(run, home, watcher)
    except KeyboardInterrupt:
        watcher.say(f"stopped; the same command goes on from the checkpoint in {home.path}")
        raise
    finally:
        watcher.close()
        home.close()


def _go_on(run: Run, home: RunFolder, watcher: Watcher) -> None:
    """Take up the checkpoint, if there is one."""
    state = home.load()
    if state is not None:
        run.load(state, home.checkpoint)
        if run.fabric.global_rank == 0:  # a crash may have come between it and its rows
            home.write_rows(run.history)
        watcher.say(_where_it_goes_on(run))


def train_stage(run: Run, home: RunFolder, watcher: Watcher, requests: Requests) -> None:
    """Carry out a phase, or the rest of it."""
    stage = run.stage
    still_dense = run.prior is None and stage.name == "linearize"
    run.enter_stage()
    warn_of_decay(run.model, run.optimizer)
    if still_dense:
        _write(run, lambda: home.write_weights("dense", run.model.state_dict()))
    if run.recipe.machine.compile:
        watcher.say("the first step of this phase is compiled, which may take minutes")
    watcher.begin(stage, run.position.stage_epoch, run.steps_per_epoch)
    while not run.finished and run.stage is stage:
        stop = train_epoch(run, watcher, requests, home)
        if run.position.batch == run.steps_per_epoch:
            row = finish_epoch(run)
            watcher.epoch(row)
            if run.recipe.tensorboard and run.fabric.global_rank == 0:
                home.to_tensorboard(row)
        save(run, home)
        if stop:
            raise KeyboardInterrupt


def train_epoch(run: Run, watcher: Watcher, requests: Requests, home: RunFolder) -> bool:
    """Carry out an epoch, or the rest of it; whether the run was asked to stop."""
    recipe, position, fabric = run.recipe, run.position, run.fabric
    run.model.train()
    batches = train_batches(
        run.task,
        recipe.batch_size,
        recipe.seed,
        position.epoch,
        first=position.batch,
        rank=fabric.global_rank,
        processes=fabric.world_size,
        workers=recipe.machine.workers,
        device=fabric.device,
    )
    for batch in batches:
        begun = time.monotonic()
        facts = train_step(run, batch, requests)
        last = position.batch == run.steps_per_epoch
        due = recipe.checkpoint_steps is not None and position.step % recipe.checkpoint_steps == 0
        looked = last or due or run.is_look
        if looked:
            require_finite(run)  # waits for a GPU, which is part of the time of the steps
        run.seconds += time.monotonic() - begun
        if looked and look(run, facts, watcher):
            return True
        if due and not last:
            save(run, home)
    return False


def train_step(run: Run, batch: Batch, requests: Requests) -> Tensor:
    """One step of the optimizer and of the prior.

    Returns:
        float64[3], summed over all processes: items, requests to stop, losses that are not finite.
    """
    recipe, position, fabric, prior = run.recipe, run.position, run.fabric, run.prior
    seed_step(recipe.seed, position.step, fabric.global_rank, fabric.device)
    rate = run.set_learning_rate()
    inputs = run.inputs(batch)
    output = run.output(inputs)
    right, count = run.task.counts(output.detach(), batch)
    loss = data_loss(run, output, batch, inputs)
    facts = agreed(run, count, requests, loss)
    # the mean over all processes of these is the mean over all items, however they are shared
    total = loss * (count * fabric.world_size / facts[0]).to(loss.dtype)
    if prior is not None and run.stage.name == "linearize":
        prior.omega = run.next_omega()  # run.add_penalty takes it into the optimizer's step
    run.optimizer.zero_grad()
    fabric.backward(total)
    if recipe.clip_norm is not None:
        # a gradient that is not finite is told by the loss or the checkpoint, with the step
        fabric.clip_gradients(
            run.wrapped,
            run.wrapped_optimizer,
            max_norm=recipe.clip_norm,
            error_if_nonfinite=False,
        )
    run.wrapped_optimizer.step()
    run.note_trouble(facts[2])
    if prior is not None:
        try:
            prior.step(rate * run.slope_ratio if run.stage.name == "linearize" else 0.0)
        except ActivityError as error:
            what = "the loss is not finite" if int(run.trouble) >= 0 else str(error)
            raise _trouble(run, position.step, what) from error
    run.tally += torch.stack([loss.detach() * count, right, count])
    position.step += 1
    position.batch += 1
    return facts


def data_loss(run: Run, output: Any, batch: Batch, inputs: tuple[Tensor, ...]) -> Tensor:
    """The task's loss, mixed with the teacher's if there is one."""
    loss = run.task.loss(output, batch, run.recipe.label_smoothing)
    taught = run.distillation
    if taught is None or run.teacher is None:
        return loss
    with torch.no_grad():
        teacher = run.forward(run.teacher, inputs)
    soft = run.task.distill(output, teacher, batch, taught.temperature)
    return (1 - taught.weight) * loss + taught.weight * soft


def agreed(run: Run, count: Tensor, requests: Requests, loss: Tensor) -> Tensor:
    """Items, requests to stop and losses that are not finite, over all processes: float64[3]."""
    asked = torch.tensor(float(requests.pending), device=count.device)
    facts = torch.stack([count, asked, ~loss.detach().isfinite()]).double()
    return run.sum_over_processes(facts)


def require_finite(run: Run) -> None:
    """Look whether the loss was a number in every step so far.

    Raises:
        TrainingError: It was not.
    """
    first_bad = int(run.trouble)
    if first_bad >= 0:
        raise _trouble(run, first_bad, "the loss is not finite")


def look(run: Run, facts: Tensor, watcher: Watcher) -> bool:
    """Show how it goes; whether the run was asked to stop."""
    loss, right, count = run.tally.tolist()
    numbers = {"train_loss": loss / max(1, count), "train_accuracy": right / max(1, count)}
    if run.shown is None or run.position.step % LOOK == 0:
        run.shown = depth(run)
    watcher.step(run.position.batch, numbers | run.shown)
    return bool(facts[1] > 0)


def _trouble(run: Run, step: int, what: str) -> TrainingError:
    saved = run.saved_step
    kept = (
        "there is no checkpoint yet" if saved is None else f"the checkpoint of step {saved} is kept"
    )
    linearizing = run.prior is not None and run.stage.name == "linearize"
    omega = f", omega {run.prior.omega:g}" if run.prior is not None and linearizing else ""
    return TrainingError(
        f"{what} at step {step} (epoch {run.position.epoch + 1}, phase {run.stage.name}, learning"
        f" rate {run.last_learning_rate:g}{omega}); {kept}. Try a lower learning rate, a warmup,"
        f" clip_norm{', or a weaker prior' if linearizing else ''}"
    )


def finish_epoch(run: Run) -> dict[str, Any]:
    """Evaluate, and move on to the next epoch or phase; the row of metrics."""
    position, stage = run.position, run.stage
    loss, right, count = added_up(run, run.tally)
    row: dict[str, Any] = {"epoch": position.epoch + 1, "phase": stage.name, "step": position.step}
    row["learning_rate"] = run.last_learning_rate
    row["omega"] = run.prior.omega if run.prior is not None and stage.name == "linearize" else 0.0
    row |= {"train_loss": loss / count, "train_accuracy": right / count}
    position.stage_epoch += 1
    last = position.stage_epoch == stage.epochs
    if last or position.stage_epoch % run.recipe.evaluate_every == 0:
        if stage.name == "linearize":
            renew_statistics(run)
        row |= evaluate(run)
        if not math.isfinite(row["test_loss"]):
            raise _trouble(run, position.step, "the loss on the test data is not finite")
    run.shown = depth(run)
    row |= run.shown
    position.epoch += 1
    position.batch = 0
    if last or ("test_loss" in row and _stops_early(run, row["test_loss"])):
        row |= decode(run) | width(run)
        position.stage += 1
        position.stage_epoch, position.best_loss, position.without_fall = 0, None, 0
    row["seconds"] = round(run.seconds, 3)
    run.history.append(row)
    run.start_counting()
    return row


def _stops_early(run: Run, loss: float) -> bool:
    settings, position = run.stage.settings.early_stop, run.position
    if settings is None:
        return False
    if position.best_loss is None or loss < position.best_loss - settings.least_change:
        position.best_loss, position.without_fall = loss, 0
    else:
        position.without_fall += 1
    return position.without_fall >= settings.patience


def save(run: Run, home: RunFolder) -> None:
    """Write a checkpoint.

    Raises:
        TrainingError: The last step made weights that are not finite, though its loss still was.
        CheckpointError: It cannot be written.
    """
    broken = [name for name, weight in run.model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise _trouble(run, run.position.step - 1, f"weights are not finite ({broken[0]})")
    if run.fabric.world_size > 1:  # the sums go to the first process, which alone writes
        total = run.sum_over_processes(run.tally)
        run.tally = total if run.fabric.global_rank == 0 else torch.zeros_like(total)
    _write(run, lambda: home.save(run.state()))
    run.saved_step = run.position.step


def _write(run: Run, write: Callable[[], None]) -> None:
    """Let the first process write; if it cannot, all processes stop."""
    problem = None
    if run.fabric.global_rank == 0:
        try:
            write()
        except CheckpointError as error:
            if run.fabric.world_size == 1:
                raise
            problem = str(error)
    problem = run.fabric.broadcast(problem)
    if problem is not None:
        raise CheckpointError(problem)


def _finish(run: Run, home: RunFolder, watcher: Watcher) -> Result:
    """Write the weights and how the run ended."""
    phases = {row["phase"]: row for row in run.history}  # the last row of each
    summary: dict[str, Any] = {
        "task": run.task.name,
        "metric": run.task.metric,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "steps": run.position.step,
        "seconds": round(run.seconds, 3),
        "phases": phases,
        "target": None,
        "versions": versions(),
    }
    progress = run.prior.progress if run.prior is not None else None
    if progress is not None:
        summary["target"] = {
            "quantity": progress.target.quantity,
            "target": progress.target.value,
            "value": progress.value,
            "reached": progress.reached,
            "within": CLOSE,
        }
        watcher.say(f"target {progress}")
    _write(run, lambda: home.write_weights("model", run.model.state_dict()))
    _write(run, lambda: home.write_summary(summary, run.history))
    watcher.end(summary)
    watcher.say(f"weights, metrics and the recipe are in {home.path}")
    return Result(home.path, summary, run.history)


def _where_it_goes_on(run: Run) -> str:
    position = run.position
    if run.finished:
        return f"this run ended before, after {position.epoch} epochs"
    return (
        f"going on in phase {run.stage.name}: {position.epoch} epochs and {position.batch} steps"
        " are done"
    )
