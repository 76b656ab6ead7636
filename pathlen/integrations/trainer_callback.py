"""A callback for the Trainer of Hugging Face transformers: depth in its logs and evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pathlen.errors import PathlenError
from pathlen.integrations.prior_steps import rate_of_slopes
from pathlen.integrations.scalars import DepthScalars, unwrapped
from pathlen.training.prior import SparsityPrior


class DepthTrainerCallback(TrainerCallback):
    """Adds the depth of the model to whatever a Trainer logs, and to what it evaluates.

    The model is traced once, when it is first asked for. "depth/napl", "depth/apl" and
    "depth/active_units" stand in `TrainerState.log_history`, in progress bars and in what
    `Trainer.evaluate` returns. Callbacks are called in order, and those for TensorBoard, Weights &
    Biases and so on come first in a Trainer: `add_to` puts this one before them.

    Args:
        args: Example input, a tensor or a tuple of positional arguments. Only shapes and dtypes
            matter.
        kwargs: Keyword arguments, such as {"input_ids": torch.zeros(1, 8, dtype=torch.long)}.
        layers: Whether the active units of each layer are logged, too.
        prior: Is stepped after the optimizer. Its penalty belongs into the loss
            (`Trainer.compute_loss`).
        prefix: Of the names.
        **options: For `pathlen.DepthMonitor`: policy, outputs, input_axis, backend.

    Raises:
        PathlenError: There is no example input. Later: whatever `pathlen.DepthMonitor` raises.
    """

    def __init__(
        self,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        layers: bool = False,
        prior: SparsityPrior | None = None,
        prefix: str = "depth",
        **options: Any,
    ) -> None:
        if args is None and kwargs is None:
            raise PathlenError(
                "a model is traced with an example input; give its arguments, such as"
                ' kwargs={"input_ids": torch.zeros(1, 8, dtype=torch.long)}'
            )
        self._args, self._kwargs = args, kwargs
        self._prior = prior
        self._options = {"layers": layers, "prefix": prefix, **options}
        self._depth: DepthScalars | None = None

    def add_to(self, trainer: Trainer) -> None:
        """Add the callback to a Trainer before all others, so that they report the depth, too."""
        trainer.add_callback(self)
        callbacks = trainer.callback_handler.callbacks
        callbacks.insert(0, callbacks.pop(callbacks.index(self)))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Trace the model as it is now; slopes that a checkpoint left at 1 stay there."""
        self._depth = None
        self._read(kwargs["model"])
        if self._prior is not None:
            self._prior.step()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Step the prior."""
        if self._prior is not None:
            rate = rate_of_slopes(unwrapped(kwargs["model"]), [kwargs["optimizer"]])
            self._prior.step(rate or 0.0)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the depth to what is logged."""
        scalars = self._read(kwargs["model"])
        kwargs["logs"].update(scalars)
        if state.log_history:  # its last entry is a copy of the same logs
            state.log_history[-1].update(scalars)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the depth to the metrics of an evaluation."""
        kwargs["metrics"].update(self._read(kwargs["model"]))

    def _read(self, model: Any) -> dict[str, float]:
        if self._depth is None:
            self._depth = DepthScalars(model, self._args, self._kwargs, **self._options)
        return self._depth.read()
