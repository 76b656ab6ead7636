"""A callback for the Trainer of Hugging Face transformers: depth in its logs, and a prior."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from pathlen.errors import CheckpointError, PathlenError
from pathlen.integrations.plain_state import from_plain, to_plain
from pathlen.integrations.scalars import DepthScalars
from pathlen.training.attachment import Attachment
from pathlen.training.averages import copy_frozen_slopes
from pathlen.training.prior import SparsityPrior
from pathlen.wrappers import unwrapped


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
        prior: Is attached to the optimizer while the Trainer trains (`SparsityPrior.attach`), so
            that its penalty counts once a step whatever is accumulated, clipped and scaled. Its
            state is in `trainer_state.json` of each checkpoint, and is taken up from there.
        averages: Averages of the model (EMA, SWA), in which units become linear with it; see
            `pathlen.training.copy_frozen_slopes`.
        prefix: Of the names.
        **options: For `pathlen.DepthMonitor`: policy, outputs, input_axis, backend.

    Raises:
        PathlenError: There is no example input. Later: whatever `pathlen.DepthMonitor` raises.
        CheckpointError: Training goes on from a checkpoint without the state of a prior, or of
            another one.
    """

    def __init__(
        self,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        layers: bool = False,
        prior: SparsityPrior | None = None,
        averages: Sequence[nn.Module | Mapping[str, Tensor]] = (),
        prefix: str = "depth",
        **options: Any,
    ) -> None:
        if args is None and kwargs is None:
            raise PathlenError(
                "a model is traced with an example input; give its arguments, such as"
                ' kwargs={"input_ids": torch.zeros(1, 8, dtype=torch.long)}'
            )
        self._args, self._kwargs = args, kwargs
        self._prior, self._averages = prior, tuple(averages)
        self._attachment: Attachment | None = None
        self._key = f"{prefix}/prior"  # in TrainerState.stateful_callbacks, which checkpoints hold
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
        """Trace the model as it is now, and take up and attach the prior."""
        self._depth = None
        self._read(kwargs["model"])
        saved = _held(state).get(self._key)
        if self._prior is None:
            if saved is not None:
                warnings.warn(
                    "the checkpoint holds the state of a prior, and DepthTrainerCallback has none:"
                    " its units will not stay linear; give the prior (prior=...)",
                    stacklevel=2,
                )
            return
        if state.global_step > 0:
            self._take_up(saved)
        self._attachment = self._prior.attach(kwargs["optimizer"])
        self._keep(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the state of the prior where a checkpoint of this step finds it."""
        self._keep(state)
        self._average(kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Detach the prior; if the best model was loaded, take up the prior's state with it."""
        if self._attachment is not None:
            self._attachment.remove()
        self._average(kwargs["model"])
        if self._prior is None or not args.load_best_model_at_end:
            return
        best = Path(state.best_model_checkpoint or "", TRAINER_STATE_NAME)
        if best.is_file():
            self._take_up(_held(TrainerState.load_from_json(str(best))).get(self._key))

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
        self._average(kwargs["model"])
        kwargs["metrics"].update(self._read(kwargs["model"]))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let averages be linear where the model is, whoever saves them next."""
        self._average(kwargs["model"])

    def _keep(self, state: TrainerState) -> None:
        if self._prior is not None:
            _held(state)[self._key] = to_plain(self._prior.state_dict())

    def _take_up(self, saved: Any) -> None:
        assert self._prior is not None
        if saved is None:
            raise CheckpointError(
                f"the checkpoint holds no state of a prior ({self._key!r} in {TRAINER_STATE_NAME}),"
                " so that this prior cannot go on from it: it is of a run without one, or of an"
                " earlier pathlen. To begin linearizing a trained network, start a new run from its"
                " weights, without resume_from_checkpoint"
            )
        self._prior.load_state_dict(from_plain(saved))

    def _average(self, model: Any) -> None:
        model = unwrapped(model) if self._prior is None else self._prior.model
        for average in self._averages:
            copy_frozen_slopes(model, average)

    def _read(self, model: Any) -> dict[str, float]:
        if self._depth is None:
            self._depth = DepthScalars(model, self._args, self._kwargs, **self._options)
        return self._depth.read()


def _held(state: TrainerState) -> dict[str, Any]:
    """What callbacks keep in a state: plain values by name, whatever its annotation says."""
    return cast("dict[str, Any]", state.stateful_callbacks)
