"""What a training run is: its task, model, phases and everything else that decides its result.

A run goes through up to three phases: the dense network is trained, its units are linearized under
the prior, and what is left is finetuned. Linearization from the start is a recipe whose training
phase has no epochs, from epoch k one whose training phase has k.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from pathlen.printable import shown
from pathlen.training.baselines.settings import AnyBaseline
from pathlen.training.optimizer_settings import SGD, Cosine, Optimizer, Schedule
from pathlen.training.prior_settings import Prior
from pathlen.training.settings import Count, Epochs, NotNegative, Positive, Settings, Share


class EarlyStop(Settings):
    """End a phase when its loss on the test data has not fallen for some evaluations.

    Attributes:
        patience: Evaluations without a fall.
        least_change: A fall by less than this is none.
    """

    patience: Count
    least_change: NotNegative = 0.0


class Phase(Settings):
    """What all phases have.

    Attributes:
        epochs: Length; 0 leaves the phase out.
        learning_rate: In place of the optimizer's.
        schedule: In place of the recipe's.
        early_stop: See :class:`EarlyStop`.
    """

    epochs: Epochs = 0
    learning_rate: Positive | None = None
    schedule: Schedule | None = None
    early_stop: EarlyStop | None = None


class Distillation(Settings):
    """The dense network as it was when linearization began teaches the one that is linearized.

    Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531:
    the loss is (1 - weight) * the task's + weight * temperature^2 * KL(teacher || student).
    """

    weight: Share = 0.5
    temperature: Positive = 4.0


def _listed(given: Any) -> Any:
    """One pattern or a list of them, as YAML has them, as a tuple."""
    return (
        (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given
    )


Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
"""Paths of modules, or patterns of them."""


class Linearize(Phase):
    """The phase under the prior, or a baseline to compare it with.

    Attributes:
        start: The epoch to begin with, counted from 0; cuts the training phase short.
        prior: See :class:`Prior`; None with a baseline.
        baseline: In place of the prior; see :mod:`pathlen.training.baselines`.
        distillation: See :class:`Distillation`.
        granularity: See :func:`pathlen.training.make_linearizable`.
        unplaced: See :func:`pathlen.training.make_linearizable`.
        only: See :func:`pathlen.training.make_linearizable`; one path or pattern, or several.
        exclude: The same.
        batch_norm_batches: Batches of the training data over which the running statistics of batch
            norms are computed anew before each evaluation of this phase: they lag behind slopes.
    """

    start: Epochs | None = None
    prior: Prior | None = Prior(omega=1e-4)
    baseline: AnyBaseline | None = None
    distillation: Distillation | None = None
    granularity: Literal["channel", "layer", "position"] = "channel"
    unplaced: Literal["refuse", "keep"] = "refuse"
    only: Patterns | None = None
    exclude: Patterns | None = None
    batch_norm_batches: Annotated[int, Field(ge=0, lt=2**31)] = 8

    @model_validator(mode="before")
    @classmethod
    def _leave_out_prior(cls, given: Any) -> Any:
        """A baseline takes the place of the prior that there is by default, not of a given one."""
        if isinstance(given, dict) and given.get("baseline") is not None:
            return {"prior": None, **given}
        return given

    @model_validator(mode="after")
    def _check(self) -> Linearize:
        if self.baseline is None:
            if self.prior is None:
                raise ValueError("prior is null, and there is no baseline in its place")
            return self
        if self.prior is not None:
            raise ValueError(
                "prior and baseline are given; a run is linearized by one of them: set prior to"
                " null or leave it out"
            )
        if self.early_stop is not None:
            raise ValueError(
                "early_stop would end a phase whose baseline reaches its target at a planned time"
            )
        if self.baseline.name == "entropy" and self.granularity == "layer":
            raise ValueError(
                "baseline 'entropy' needs a slope for each unit: granularity 'channel' or"
                " 'position', not 'layer'"
            )
        return self


class Finetune(Phase):
    """The phase after it: no prior, frozen slopes stay at 1.

    Attributes:
        distillation: See :class:`Distillation`.
    """

    distillation: Distillation | None = None


class Machine(Settings):
    """What a run is computed on; see `lightning_fabric.Fabric`.

    Attributes:
        accelerator: "auto", "cpu", "cuda", ...
        devices: Processes of a node, or "auto".
        nodes: Number of nodes.
        strategy: How they work together.
        precision: "32-true", "bf16-mixed", "16-mixed", "64-true", ...
        deterministic: Whether a GPU uses deterministic algorithms only; a CPU always does.
        threads: Of a CPU process; torch decides if it is not given. Small networks are fastest with
            one, and another number gives other last digits.
        workers: Processes that load data, for each process that trains; sets in memory need none.
        data: Where sets in memory are kept: on the "device", in main memory ("host"), or "auto", on
            the device if they take no more than a quarter of what is free there.
        channels_last: Whether the channels of a pixel lie side by side in memory, which is faster
            and gives other last digits; by default they do for models of images that take them so.
        compile: Whether training steps go through `torch.compile`; see
            :mod:`pathlen.training.compiled`.
        keep_memory: Whether a process that trains on a CPU keeps memory from step to step, until it
            ends: asking the system for it anew takes time.
    """

    accelerator: str = "auto"
    devices: Count | Literal["auto"] = 1
    nodes: Count = 1
    strategy: str = "auto"
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    deterministic: bool = False
    threads: Count | None = None
    workers: Annotated[int, Field(ge=0, lt=2**16)] = 0
    data: Literal["auto", "device", "host"] = "auto"
    channels_last: bool | None = None
    compile: bool = False
    keep_memory: bool = True


class Weights(Settings):
    """Weights that somebody has trained, to begin with; see :mod:`pathlen.training.weight_files`.

    Attributes:
        file: A run's folder or a file.
        pickled: Whether a file of `torch.save` is read, by `torch.load(weights_only=True)`.
        part: Which entry of the file holds the weights, if several do.
        rename: Regular expressions and what to put in the place of what they find in a name, one
            after the other; "module." and "_orig_mod." before names are gone by then.
    """

    file: str
    pickled: bool = False
    part: str | None = None
    rename: dict[str, str] | None = None

    @field_validator("rename")
    @classmethod
    def _check_patterns(cls, rename: dict[str, str] | None) -> dict[str, str] | None:
        for pattern, replacement in (rename or {}).items():
            try:
                re.compile(f"(?:{pattern})|").sub(replacement, "")
            except (re.error, LookupError, OverflowError, RecursionError) as error:
                raise ValueError(f"{shown(pattern)} to {shown(replacement)}: {error}") from error
        return rename


AnyWeights = Annotated[
    Annotated[str, Tag("path")] | Annotated[Weights, Tag("settings")],
    Discriminator(lambda given: "path" if isinstance(given, str) else "settings"),
]
"""A path alone, or settings."""


class Recipe(Settings):
    """Everything that decides the result of a run.

    Attributes:
        task: "name" and settings; see :func:`pathlen.training.build_task`.
        model: "name" and settings; see :func:`pathlen.training.build_model`.
        weights: What to begin with in place of random weights: a run's folder or a file, or
            :class:`Weights`.
        seed: Of the weights, the order of items, dropout.
        batch_size: Items in a step, over all processes.
        test_batch_size: Items evaluated at once, in each process; by default what suits the largest
            activation of the model.
        evaluate_every: Epochs of a phase from one evaluation on the test data to the next; there is
            one after its last epoch in any case.
        optimizer: See :class:`SGD` and :class:`AdamW`.
        schedule: Of the learning rate.
        label_smoothing: Of the task's loss.
        clip_norm: Largest norm of the gradient.
        train: The phase in which the dense network is trained.
        linearize: The phase under the prior.
        finetune: The phase after it.
        checkpoint_steps: Steps between checkpoints; there is one after each epoch in any case.
        tensorboard: Whether metrics go to TensorBoard too.
        machine: See :class:`Machine`.
    """

    task: dict[str, Any]
    model: dict[str, Any]
    weights: AnyWeights | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    batch_size: Count = 128
    test_batch_size: Count | None = None
    evaluate_every: Count = 1
    optimizer: Optimizer = SGD()
    schedule: Schedule = Cosine()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Positive | None = None
    train: Phase = Phase()
    linearize: Linearize = Linearize()
    finetune: Finetune = Finetune()
    checkpoint_steps: Count | None = None
    tensorboard: bool = False
    machine: Machine = Machine()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        start, length = self.linearize.start, self.train.epochs
        if start is not None and start > length:
            raise ValueError(
                f"linearize.start is epoch {start}, but training ends after {length}; set"
                f" train.epochs to {start} or more"
            )
        if not self.linearize.epochs and start is not None:
            raise ValueError("linearize.start is given, but linearize.epochs is 0")
        if not any(phase.epochs for phase in (self.train, self.linearize, self.finetune)):
            raise ValueError("no phase has an epoch: set train.epochs or linearize.epochs")
        distilled = self.linearize.distillation or self.finetune.distillation
        if distilled and not (self.train_epochs or self.weights):
            raise ValueError("distillation needs a teacher: train first, or give weights")
        if self.finetune.distillation and not self.linearize.epochs:
            raise ValueError(
                "finetune.distillation needs the linearize phase, at whose beginning the network"
                " becomes its own teacher"
            )
        return self

    @property
    def weights_file(self) -> str | None:
        """Path of the weights to begin with."""
        return self.weights.file if isinstance(self.weights, Weights) else self.weights

    def with_weights_file(self, file: str) -> Recipe:
        """The same recipe with the weights in another place."""
        given = self.weights
        moved = given.model_copy(update={"file": file}) if isinstance(given, Weights) else file
        return self.model_copy(update={"weights": moved})

    @property
    def train_epochs(self) -> int:
        """Length of the training phase, which linearization may cut short."""
        start = self.linearize.start
        return self.train.epochs if start is None else start
