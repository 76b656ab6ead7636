"""Depth written to TensorBoard, Weights & Biases and their like, from a loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pathlen.errors import PathlenError
from pathlen.integrations.scalars import DepthScalars

Write = Callable[[Mapping[str, float], int], Any]


class DepthLogger:
    """Writes the depth of a model every so many steps.

    Args:
        depth: What reads the model.
        *sinks: Where it is written: `torch.utils.tensorboard.SummaryWriter`, the run that
            `wandb.init` returns, `accelerate.Accelerator`, `lightning.Fabric`, or any function that
            takes a dictionary and a step.
        every_n_steps: It is read at the steps that are multiples of this.

    Raises:
        PathlenError: A sink is none of these, or the number of steps is below 1.
    """

    def __init__(self, depth: DepthScalars, *sinks: Any, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise PathlenError(f"every_n_steps={every_n_steps!r} must be at least 1")
        self._depth = depth
        self._writes = [_writer(sink) for sink in sinks]
        self._every_n_steps = every_n_steps

    def log(self, step: int) -> dict[str, float] | None:
        """Read the model and write it, if it is time.

        Args:
            step: Number of the step, for the axis of the plots.

        Returns:
            What was written, or None.

        Raises:
            PathlenError: As `DepthScalars.read` does.
        """
        if step % self._every_n_steps:
            return None
        scalars = self._depth.read()
        for write in self._writes:
            write(scalars, step)
        return scalars


def _writer(sink: Any) -> Write:
    """How a sink takes a dictionary of numbers. None of their libraries is imported for that."""
    if hasattr(sink, "add_scalar"):  # TensorBoard
        return lambda scalars, step: [
            sink.add_scalar(name, value, step) for name, value in scalars.items()
        ]
    if hasattr(sink, "log_dict"):  # Fabric, whose log takes one number
        return lambda scalars, step: sink.log_dict(scalars, step=step)
    if hasattr(sink, "log"):  # Weights & Biases, Accelerate
        return lambda scalars, step: sink.log(scalars, step=step)
    if callable(sink):
        return lambda scalars, step: sink(scalars, step)
    raise PathlenError(
        f"depth cannot be written to an object of type {type(sink).__name__}; give a TensorBoard"
        " writer, a W&B run, an Accelerator, a Fabric, or a function of a dictionary and a step"
    )
