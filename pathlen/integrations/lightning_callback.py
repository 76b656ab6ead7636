"""A callback for Lightning: depth among the metrics, and the steps of a sparsity prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from pathlen.errors import PathlenError
from pathlen.integrations.prior_steps import rate_of_slopes
from pathlen.integrations.scalars import DepthScalars
from pathlen.training.prior import SparsityPrior


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
        prior: Is stepped after the optimizer, and kept in checkpoints. Its penalty belongs into
            ``training_step``.
        prefix: Of the metrics.
        **options: For `pathlen.DepthMonitor`: policy, outputs, input_axis, backend.

    Attributes:
        depth: What reads, from the start of a fit on.

    Raises:
        PathlenError: The number of steps is below 1. When a fit starts: no example input is known,
            or whatever `pathlen.DepthMonitor` raises.
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
        prefix: str = "depth",
        **options: Any,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise PathlenError(f"every_n_steps={every_n_steps!r} must be at least 1")
        self._args, self._kwargs = args, kwargs
        self._module = module
        self._every_n_steps = every_n_steps
        self._prior = prior
        self._options = {"layers": layers, "prefix": prefix, **options}
        self._global_step = 0
        self._rate = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Trace the model."""
        model = pl_module.get_submodule(self._module)
        args, kwargs = self._example(pl_module)
        self.depth = DepthScalars(model, args, kwargs, **self._options)
        self._global_step = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Note the learning rate of slopes, which schedulers change before the batch ends."""
        if self._prior is not None:
            rate = rate_of_slopes(pl_module, [optimizer])
            self._rate = self._rate if rate is None else rate

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Step the prior and log, unless gradients are still being added up."""
        if trainer.global_step == self._global_step:
            return
        self._global_step = trainer.global_step
        if self._prior is not None:
            self._prior.step(self._rate)
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
        if self._every_n_steps is None:
            # The same in all processes; Lightning warns of metrics of epochs that are not averaged.
            pl_module.log_dict(self.depth.read(), on_epoch=True, batch_size=1, sync_dist=True)

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
