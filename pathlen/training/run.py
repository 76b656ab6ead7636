"""A training run: everything that changes while a recipe is carried out, and nothing else."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import pathlen
from pathlen.errors import CheckpointError, PathlenError, SettingsError
from pathlen.monitor.monitor import DepthMonitor
from pathlen.printable import shown
from pathlen.tracing.own_numbers import own_numbers
from pathlen.training.baselines.signs import SignCounter
from pathlen.training.batch_norm import share_statistics
from pathlen.training.batches import steps_per_epoch, train_batches
from pathlen.training.compiled import compiled, compiling
from pathlen.training.groups import parameter_groups
from pathlen.training.host_memory import keep_memory
from pathlen.training.learning_rate import Stage, learning_rate, stages
from pathlen.training.linearizer import Linearizer
from pathlen.training.make_linearizer import check_linearizer, make_linearizer, make_omega
from pathlen.training.make_model import load_weights, make_model, require_finite_weights
from pathlen.training.memory_format import chosen_format, laid_out, like_parameters
from pathlen.training.omega import GrowUntilFalling, Schedule, constant
from pathlen.training.placement import placed
from pathlen.training.recipe import Distillation, Finetune, Linearize, Recipe
from pathlen.training.records import check_rows
from pathlen.training.slopes import slopes_of
from pathlen.training.task import Batch, Task
from pathlen.training.tasks.translation import evaluating

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOOK = 20
"""Steps between readings of the depth to show, and between looks at what a GPU computed; what a CPU
did is looked at after every step."""

FORMAT = 2
"""Of checkpoints: raised whenever another program could not go on from them to the same end."""

_OF_WRONG_STATES = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)
"""What Python and torch raise where a state is not what it should be."""


@dataclass(slots=True)
class Position:
    """Where a run is.

    Attributes:
        step: Steps done.
        epoch: Epochs done.
        stage: Phases done.
        stage_epoch: Epochs of this phase done.
        batch: Batches of this epoch done.
        best_loss: Least loss on the test data in this phase, for early stopping.
        without_fall: Evaluations since then.
    """

    step: int = 0
    epoch: int = 0
    stage: int = 0
    stage_epoch: int = 0
    batch: int = 0
    best_loss: float | None = None
    without_fall: int = 0


class Run:
    """The task, the model, its optimizer, linearizer and teacher, and how far they are.

    Args:
        recipe: What to do.
        fabric: Launched already.
        task: The recipe's task.

    Raises:
        PathlenError: The recipe does not fit the task, the model or the machine.
    """

    def __init__(self, recipe: Recipe, fabric: Fabric, task: Task) -> None:
        self.recipe, self.fabric = recipe, fabric
        self.task = task = placed(task, fabric.device, recipe.machine.data)
        self.steps_per_epoch = steps_per_epoch(task, recipe.batch_size, fabric.world_size)
        self.stages = stages(recipe)
        self.position = Position()
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        if recipe.machine.compile and fabric.world_size > 1:
            raise SettingsError(
                "machine.compile: several processes exchange statistics within a step, which is"
                " not compiled; leave it out, or set machine.devices to 1"
            )
        self.model = make_model(recipe, task)
        self.monitor = DepthMonitor(self.model, task.example)
        if recipe.linearize.epochs:
            check_linearizer(recipe, self.model, self.monitor)
        self.form = chosen_format(self.model, task.example, recipe.machine.channels_last)
        if fabric.world_size > 1:
            share_statistics(self.model)
        # now, and not when the module is set up: weights are loaded in this precision
        self.model = fabric.strategy.precision.convert_module(self.model).to(fabric.device)
        if self.form is torch.channels_last:
            self.model = self.model.to(memory_format=self.form)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(recipe, self.model)
        self.wrapped: nn.Module = self.model
        self.wrapped_optimizer: Any = self.optimizer
        self.prior: Linearizer | None = None
        self.omega: Schedule = constant(0.0)
        self.num_active = 0
        self.teacher: nn.Module | None = None
        self.saved_step: int | None = None
        self.shown: dict[str, Any] | None = None
        self.trouble = torch.full((), -1, device=fabric.device)
        self.start_counting()

    @property
    def stage(self) -> Stage:
        """The phase that the run is in."""
        return self.stages[self.position.stage]

    @property
    def finished(self) -> bool:
        """Whether all phases are done."""
        return self.position.stage == len(self.stages)

    @property
    def is_look(self) -> bool:
        """Whether what the device computed is looked at now: waiting for a GPU costs time."""
        return self.fabric.device.type == "cpu" or self.position.step % LOOK == 0

    @property
    def distillation(self) -> Distillation | None:
        """How the teacher teaches in this phase."""
        settings = self.stage.settings
        return settings.distillation if isinstance(settings, Linearize | Finetune) else None

    @property
    def slope_ratio(self) -> float:
        """Learning rate of the slopes beside that of other parameters."""
        settings = self.recipe.optimizer
        return (settings.slope_learning_rate or settings.learning_rate) / settings.learning_rate

    def set_learning_rate(self) -> float:
        """Give the optimizer the learning rate of this step; it is returned."""
        epoch = self.position.stage_epoch + self.position.batch / self.steps_per_epoch
        rate = learning_rate(self.recipe, self.stage, epoch)
        for group, ratio in zip(self.optimizer.param_groups, (1.0, self.slope_ratio), strict=False):
            group["lr"] = rate * ratio
        return rate

    @property
    def last_learning_rate(self) -> float:
        """That of the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def next_omega(self) -> float:
        """Strength of the prior in this step."""
        assert self.prior is not None
        if self.is_look:
            self.num_active = self.prior.num_active
        step = self.position.stage_epoch * self.steps_per_epoch + self.position.batch
        return self.omega(step, self.num_active)

    def note_trouble(self, bad: Tensor) -> None:
        """Keep the number of the first step whose loss was not finite, without waiting for it."""
        fresh = (self.trouble < 0) & (bad > 0)
        self.trouble = torch.where(fresh, self.position.step, self.trouble)

    def start_counting(self) -> None:
        """Begin the sums of an epoch: loss times items, right items, items."""
        self.tally = torch.zeros(3, dtype=torch.float64, device=self.fabric.device)

    def enter_stage(self) -> None:
        """Make what the phase needs; at its beginning, and when a run goes on in its middle."""
        linear = self.stage.name != "train"
        for own in slopes_of(self.model):
            if own.positions is not None:  # a PReLU of the user's own trains all the time
                own.parameter.requires_grad_(linear)
        # wrapped anew: DistributedDataParallel looks once at which parameters are trained
        trained = self.model
        if self.recipe.machine.compile:
            trained = compiled(self.model, self.task.example, self.fabric.device)
        self.wrapped = self.fabric.setup_module(trained)
        self.wrapped_optimizer = self.fabric.setup_optimizers(self.optimizer)
        if linear and self.recipe.linearize.epochs and self.prior is None:
            self._begin_linearizing()

    def _begin_linearizing(self) -> None:
        if self.recipe.linearize.distillation or self.recipe.finetune.distillation:
            self.teacher = copy.deepcopy(self.model).requires_grad_(False).eval()
        steps = self.recipe.linearize.epochs * self.steps_per_epoch
        self.prior = make_linearizer(self.recipe, self.model, self.monitor, steps, self.count_signs)
        self.omega = make_omega(self.recipe, self.steps_per_epoch)
        self.optimizer.register_step_pre_hook(self.add_penalty)

    def add_penalty(self, *_: Any) -> None:
        """Add the gradient of the penalty, as a step of the optimizer begins.

        Gradients are clipped and unscaled by then: how much of the loss is clipped does not depend
        on how strong the prior is, nor the other way round.
        """
        if self.prior is not None and self.stage.name == "linearize":
            self.prior.add_gradient()

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Arguments of the model, in the run's memory format."""
        return laid_out(self.task.inputs(batch), self.form)

    def output(self, inputs: tuple[Tensor, ...]) -> Any:
        """What the model gives in a training step."""
        watched = compiling(self.model) if self.recipe.machine.compile else nullcontext()
        with watched:
            return self.wrapped(*inputs)

    def forward(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        """A forward pass in the run's precision that waits for no other process."""
        precision = self.fabric.strategy.precision
        with precision.forward_context():
            return precision.convert_output(model(*precision.convert_input(inputs)))

    @torch.no_grad()
    def count_signs(self, batches: int) -> Tensor:
        """Signs of pre-activations in the first batches of this epoch: int64[slopes, 2].

        The model is in eval mode meanwhile. Each process counts its share of a batch.
        """
        fabric = self.fabric
        found = train_batches(
            self.task,
            self.recipe.batch_size,
            self.recipe.seed,
            self.position.epoch,
            rank=fabric.global_rank,
            processes=fabric.world_size,
            device=fabric.device,
        )
        counter = SignCounter(self.model)
        with own_numbers(None), evaluating(self.model), counter:
            for _, batch in zip(range(batches), found, strict=False):
                self.forward(self.model, self.inputs(batch))
        return self.sum_over_processes(counter.counts)

    def sum_over_processes(self, tensor: Tensor) -> Tensor:
        """The sum of what each process has."""
        if self.fabric.world_size == 1:
            return tensor
        total = self.fabric.all_reduce(tensor, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        grown = isinstance(self.omega, GrowUntilFalling)
        return {
            "format": FORMAT,
            "position": asdict(self.position),
            "seconds": self.seconds,
            "history": self.history,
            "tally": self.tally,
            "model": self.model.state_dict(),
            "optimizer": _with_text_keys(self.optimizer.state_dict()["state"]),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "prior": None if self.prior is None else self.prior.state_dict(),
            "num_active": self.num_active,
            "omega": self.omega.state_dict() if grown else None,  # type: ignore[attr-defined]
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
        }

    def load(self, state: Mapping[str, Any], where: Path) -> None:
        """Go on where another run was.

        Raises:
            CheckpointError: The state is of a newer format, of another model, or damaged.
        """
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{where} has format {shown(state.get('format'))}, and this pathlen reads {FORMAT}"
            )
        try:
            self._load(state, where)
        except CheckpointError:
            raise
        except (*_OF_WRONG_STATES, PathlenError) as error:
            raise CheckpointError(
                f"{where} is damaged: it does not hold what a checkpoint of this run does"
                f" ({type(error).__name__}: {error}); restore it, or remove it to begin anew"
            ) from error

    def _load(self, state: Mapping[str, Any], where: Path) -> None:
        load_weights(self.model, state["model"], where)
        require_finite_weights(self.model, where)
        self.position = self._checked_position(state, where)
        self.saved_step = self.position.step
        self.seconds, self.history = state["seconds"], state["history"]
        self.num_active = state["num_active"]
        if self.fabric.global_rank == 0:  # the others begin at 0: the sums are of all processes
            self.tally = state["tally"].to(self.fabric.device)
        if state["prior"] is not None:
            self._begin_linearizing()
            assert self.prior is not None
            self.prior.load_state_dict(state["prior"])
        if isinstance(self.omega, GrowUntilFalling):
            self.omega.load_state_dict(state["omega"])
        if self.teacher is not None:
            load_weights(self.teacher, state["teacher"], where)
        if state["scaler"]:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        groups = self.optimizer.state_dict()["param_groups"]
        own = {int(key): value for key, value in state["optimizer"].items()}
        self.optimizer.load_state_dict({"state": own, "param_groups": groups})
        like_parameters(self.optimizer)

    def _checked_position(self, state: Mapping[str, Any], where: Path) -> Position:
        """The position in a state, if this run can be there."""
        position = Position(**state["position"])
        check_rows(state["history"], f"{where}, its history", CheckpointError)
        counts = [position.step, position.epoch, position.stage, position.stage_epoch]
        counts += [position.batch, position.without_fall]
        possible = all(type(count) is int and count >= 0 for count in counts)
        if possible and position.stage < len(self.stages):
            possible = position.stage_epoch < self.stages[position.stage].epochs
            possible &= position.batch < self.steps_per_epoch
        if not possible or position.stage > len(self.stages):
            raise ValueError(f"no run of this recipe is at {shown(state['position'])}")
        if len(state["history"]) != position.epoch:
            raise ValueError(f"{len(state['history'])} rows of {position.epoch} epochs")
        return position


def _with_text_keys(state: Mapping[int, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in state.items()}


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a recipe, over all parameters; slopes do not decay."""
    settings = recipe.optimizer
    groups = [one for one in parameter_groups(model, settings.weight_decay) if one["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
        )
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas)


def make_fabric(recipe: Recipe) -> Fabric:
    """Start the processes of a recipe's machine.

    Raises:
        SettingsError: The machine has no such accelerator, or too few devices.
    """
    from lightning_fabric import Fabric  # takes longer to load than all the rest: only to train

    machine = recipe.machine
    try:
        fabric = Fabric(
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy=machine.strategy,
            precision=machine.precision,
        )
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise SettingsError(f"machine: {error}") from error
    if machine.keep_memory and fabric.device.type == "cpu":
        keep_memory()
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    if machine.deterministic:
        # read at the first matrix product on a GPU, which is still to come
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return fabric


def versions() -> dict[str, str]:
    """What computed a run."""
    return {"pathlen": pathlen.__version__, "torch": torch.__version__}
