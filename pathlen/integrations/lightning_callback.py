"""A callback for Lightning: depth among the metrics, and a sparsity prior."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from pathlen.errors import CheckpointError, PathlenError
from pathlen.integrations.scalars import DepthScalars
from pathlen.training.attachment import Attachment
from pathlen.training.averages import copy_frozen_slopes
from pathlen.training.prior import SparsityPrior
from pathlen.training.slopes import slopes_of


class DepthCallback(Callback):
    """Logs the depth of a LightningModule, which is traced once when a fit starts.

    "depth/napl", "depth/apl" and "depth/active_units" go to all loggers and are among the metrics
    that checkpoints and early stopping can ask for. In a distributed run every process reads the
    same from its replica, and loggers write in the first.

    Args:
        args: Example input, a tensor or a tuple of positional arguments. Only shapes and dtypes
            matter. By default ``LightningModule.example_input_array``.
        kwargs: Keyword arguments.
        module: Name of the submodule that is followed, "" for the LightningModule itself.
        every_n_steps: Depth is read after so many steps of the optimizer, whatever
            ``log_every_n_steps`` says of other metrics; None: once an epoch, at its end.
        layers: Whether the active units of each layer are logged, too.
        prior: Is attached to the optimizer that holds the slopes while a fit lasts
            (`SparsityPrior.attach`), so that its penalty counts once a step whatever is
            accumulated, clipped and scaled. It is kept in checkpoints.
        averages: Averages of the LightningModule or of its model (EMA, SWA), in which units become
            linear with it; see `pathlen.training.copy_frozen_slopes`. Those of Lightning's own
            callbacks (WeightAveraging, EMAWeightAveraging, StochasticWeightAveraging) are found.
        prefix: Of the metrics.
        **options: For `pathlen.DepthMonitor`: policy, outputs, input_axis, backend.

    Attributes:
        depth: What reads, from the start of a fit on.

    Raises:
        PathlenError: The number of steps is below 1. When a fit starts: no example input is known,
            or whatever `pathlen.DepthMonitor` raises; no optimizer, or several, hold the slopes.
        CheckpointError: A fit goes on from a checkpoint without the state of a prior.
    """

    depth: DepthScalars

    def __init__(
        self,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        module: str = "",
        every_n_steps: int | None = None,
        layers: bool = False,
        prior: SparsityPrior | None = None,
        averages: Sequence[nn.Module | Mapping[str, Tensor]] = (),
        prefix: str = "depth",
        **options: Any,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise PathlenError(f"every_n_steps={every_n_steps!r} must be at least 1")
        self._args, self._kwargs = args, kwargs
        self._module = module
        self._every_n_steps = every_n_steps
        self._prior, self._averages = prior, tuple(averages)
        self._attachment: Attachment | None = None
        self._options = {"layers": layers, "prefix": prefix, **options}
        self._global_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Trace the model."""
        model = pl_module.get_submodule(self._module)
        args, kwargs = self._example(pl_module)
        self.depth = DepthScalars(model, args, kwargs, **self._options)
        self._global_step = trainer.global_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the prior to the optimizer that holds the slopes."""
        if self._prior is None:
            return
        slopes = {id(own.parameter) for own in slopes_of(pl_module)}
        holders = [
            optimizer
            for optimizer in trainer.optimizers
            if any(id(p) in slopes for group in optimizer.param_groups for p in group["params"])
        ]
        if len(holders) != 1:
            raise PathlenError(
                f"the slopes are in {len(holders)} of the {len(trainer.optimizers)} optimizers of"
                f" {type(pl_module).__name__}, and a prior is attached to one that holds all of"
                " them; see configure_optimizers, and pathlen.training.parameter_groups"
            )
        self._attachment = self._prior.attach(holders[0])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log, unless gradients are still being added up."""
        self._average(trainer, pl_module)
        if trainer.global_step == self._global_step:
            return
        self._global_step = trainer.global_step
        # What Lightning's own callbacks count by; the batch that ends is not yet among them.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if self._every_n_steps and (step + 1) % self._every_n_steps == 0:
            self._log_step(trainer, step)

    def _log_step(self, trainer: Trainer, step: int) -> None:
        """Log at one step.

        Not through ``LightningModule.log``: at the steps between two readings Lightning would write
        the older one again, as if it were theirs.
        """
        scalars = self.depth.read()
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=step)
        trainer.callback_metrics.update({name: torch.tensor(v) for name, v in scalars.items()})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log once an epoch."""
        self._average(trainer, pl_module)
        if self._every_n_steps is None:
            # The same in all processes; Lightning warns of metrics of epochs that are not averaged.
            pl_module.log_dict(self.depth.read(), on_epoch=True, batch_size=1, sync_dist=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let averages be linear where the model is before they are evaluated in its place."""
        self._average(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detach the prior. Lightning's averages become the model now."""
        self._average(trainer, pl_module)
        if self._attachment is not None:
            self._attachment.remove()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Detach the prior, so that a loop that comes after this fit has its penalty again."""
        if self._attachment is not None:
            self._attachment.remove()

    def _average(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        own = [getattr(callback, "_average_model", None) for callback in callbacks]
        known = [average for average in own if average is not None]
        if known and slopes_of(pl_module):
            for average in known:
                copy_frozen_slopes(pl_module, average)
        followed = pl_module.get_submodule(self._module)
        model = followed if self._prior is None else self._prior.model
        for average in self._averages:
            copy_frozen_slopes(model, average)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look whether a fit can go on from a checkpoint."""
        held = "prior" in checkpoint.get("callbacks", {}).get(self.state_key, {})
        if trainer.state.fn != TrainerFn.FITTING or held == (self._prior is not None):
            return
        if held:
            warnings.warn(
                "the checkpoint holds the state of a prior, and DepthCallback has none: its units"
                " will not stay linear; give the prior (prior=...)",
                stacklevel=2,
            )
            return
        raise CheckpointError(
            "the checkpoint holds no state of a prior, so that this prior cannot go on from it: it"
            " is of a run without one. To begin linearizing a trained network, load its weights"
            " into the model and start a new fit, without ckpt_path"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {} if self._prior is None else {"prior": self._prior.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        if self._prior is not None and "prior" in state_dict:
            self._prior.load_state_dict(state_dict["prior"])

    def _example(self, pl_module: LightningModule) -> tuple[Any, Mapping[str, Any] | None]:
        """Arguments to trace the model with."""
        if self._args is not None or self._kwargs is not None:
            return self._args, self._kwargs
        example = pl_module.example_input_array
        if example is None:
            raise PathlenError(
                f"no example input is known: give DepthCallback(args), or set example_input_array"
                f" in {type(pl_module).__name__}"
            )
        return (None, example) if isinstance(example, dict) else (example, None)
