"""Small runs in the Hugging Face Trainer and in Lightning that may be killed and go on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pathlen.training import Plan, SparsityPrior, Target, make_linearizable, parameter_groups
from tests.vision import import_torchvision

EXAMPLE = torch.zeros(2, 4)
EPOCHS, EPOCH = 8, 10  # steps of the optimizer in an epoch
STEPS = EPOCHS * EPOCH


def network(width: int = 12) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 8), nn.GELU()]
    return make_linearizable(nn.Sequential(*layers, nn.Linear(8, 2)), EXAMPLE[:1])


def prior_of(model: nn.Module, share: str = "40 %", **options: Any) -> SparsityPrior:
    plan = Plan(Target("units", share), STEPS, begin=0.1, end=0.9, ahead=0.3)
    return SparsityPrior(model, **{"omega": 0.02, "plan": plan, **options})


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameter_groups(model, 1e-3), lr=0.1, momentum=0.9)


def data(number: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(number, 4, generator=generator)
    return TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())


def end(model: nn.Module, prior: SparsityPrior, **more: Any) -> dict[str, Any]:
    return copy.deepcopy({"model": model.state_dict(), "prior": prior.state_dict(), **more})


class Classifier(nn.Module):
    """As models of transformers are: with a loss, whose forward takes whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Any, labels: Any = None, **_: Any) -> Any:
        logits = self.net(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def trainer_of(
    folder: Path, model: Any, prior: SparsityPrior | None, *callbacks: Any, **options: Any
) -> Any:
    """A Trainer whose steps take two batches each; with a prior of None, no callback of ours."""
    import_torchvision()
    from transformers import Trainer, TrainingArguments

    from pathlen.integrations import DepthTrainerCallback

    optimizer = optimizer_of(model)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    kwargs = {"x": EXAMPLE, "labels": torch.zeros(2, dtype=torch.long)}
    depth = DepthTrainerCallback(kwargs=kwargs, prior=prior, outputs="logits")
    items = [{"x": x, "labels": y} for x, y in data(EPOCH * 16)]
    arguments = {
        "output_dir": str(folder),
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "save_steps": 3,
        "logging_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        **options,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=items,
        eval_dataset=items[:16],
        optimizers=(optimizer, constant),
        callbacks=[*([depth] if prior is not None else []), *callbacks],
    )


def whole_checkpoint(folder: Path) -> str | None:
    """The newest that was written to its end: the Trainer writes its state last."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1])):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        return str(path)
    return None


def hugging_face(folder: Path, begun: Callable[[], None]) -> None:
    """Train, or go on; what has come of it is written beside the checkpoints.

    Args:
        folder: Of the checkpoints.
        begun: Called before the first step.
    """
    torch.set_num_threads(1)
    model = Classifier()
    prior = prior_of(model.net)
    # by steps: what it logs after an epoch is not in the checkpoint of its last step
    trainer = trainer_of(folder, model, prior, logging_strategy="steps", logging_steps=10)
    begun()
    trainer.train(resume_from_checkpoint=whole_checkpoint(folder))
    logged = [
        {name: value for name, value in row.items() if name.startswith(("depth/", "step"))}
        for row in trainer.state.log_history
    ]
    ended = end(model, prior, optimizer=trainer.optimizer.state_dict(), logged=logged)
    torch.save(ended, folder / "end.pt")


def module_of(prior: bool = True, **options: Any) -> Any:
    """A LightningModule."""
    import_torchvision()
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.example_input_array = EXAMPLE
            self.prior = prior_of(self.model, **options) if prior else None

        def forward(self, x: Any) -> Any:
            return self.model(x)

        def training_step(self, batch: Any, index: int) -> Any:
            # Lightning goes on with the first batches in the middle of an epoch, and keeps no
            # random numbers in its checkpoints
            x, y = (tensor[8 * index : 8 * index + 8] for tensor in data(EPOCH * 16).tensors)
            torch.manual_seed(index)
            return nn.functional.cross_entropy(self(x), y)

        def configure_optimizers(self) -> Any:
            return optimizer_of(self.model)

    return Module()


def lightning_of(folder: Path, module: Any, *callbacks: Any, **options: Any) -> tuple[Any, Any]:
    """A Trainer of Lightning, and the batches of an epoch."""
    from lightning.pytorch import Trainer

    from pathlen.integrations import DepthCallback

    trainer = Trainer(
        **{
            "max_epochs": EPOCHS,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": any("Checkpoint" in type(c).__name__ for c in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "accumulate_grad_batches": 2,
            "gradient_clip_val": 1.0,
            "default_root_dir": folder,
            "callbacks": [DepthCallback(prior=module.prior), *callbacks],
            **options,
        }
    )
    return trainer, DataLoader(data(EPOCH * 16), batch_size=8)


def newest(folder: Path) -> str | None:
    """The newest checkpoint of Lightning, which writes them in one piece."""
    found = sorted(folder.glob("*.ckpt"), key=lambda p: -int(p.stem.split("step=")[1]))
    return str(found[0]) if found else None


def lightning(folder: Path, begun: Callable[[], None]) -> None:
    """The same in Lightning."""
    torch.set_num_threads(1)
    module = module_of()
    from lightning.pytorch.callbacks import ModelCheckpoint

    class CheckpointBetweenSteps(ModelCheckpoint):
        """Saves no sums of gradients, and so not in the middle of them.

        Lightning would write the checkpoint from which it went on once more, a batch later.
        """

        def on_train_batch_end(self, *given: Any) -> None:
            if (given[-1] + 1) % 2 == 0:
                super().on_train_batch_end(*given)

    keep = CheckpointBetweenSteps(folder, save_top_k=-1, every_n_train_steps=3)
    trainer, batches = lightning_of(folder, module, keep)
    begun()
    trainer.fit(module, batches, ckpt_path=newest(folder), weights_only=False)
    optimizer = trainer.optimizers[0].state_dict()
    logged = dict(trainer.callback_metrics)
    ended = end(module.model, module.prior, optimizer=optimizer, logged=logged)
    torch.save(ended, folder / "end.pt")
