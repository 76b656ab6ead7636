"""Runs in the Hugging Face Trainer and in Lightning that go on, with the prior that they had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import pathlen
from pathlen.errors import CheckpointError, PathlenError
from tests.callback_runs import (
    EPOCHS,
    EXAMPLE,
    STEPS,
    Classifier,
    end,
    lightning_of,
    module_of,
    prior_of,
    trainer_of,
)

lightning_warnings = pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.:FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:The 'val_dataloader' does not have many workers",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
    "ignore:Checkpoint directory .* exists and is not empty",
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def active(model: torch.nn.Module) -> int:
    return pathlen.measure(model, EXAMPLE[:1]).num_active


# ------------------------------------------------------------------ the Hugging Face Trainer


def hugging_face(folder: Path, **options: Any) -> tuple[Any, Any, Any]:
    model = Classifier()
    prior = prior_of(model.net)
    return model, prior, trainer_of(folder, model, prior, **options)


@pytest.mark.parametrize("resume", ["by name", "the last"])
def test_hugging_face_goes_on(tmp_path: Path, resume: str) -> None:
    """With the plan where it was: the end is the same bit for bit."""
    model, prior, trainer = hugging_face(tmp_path / "whole", save_steps=31)
    trainer.train()
    assert prior.progress.reached
    assert prior.state_dict()["step"] == STEPS
    assert active(model.net) == prior.num_active < 20
    expected = end(model, prior)
    folder = tmp_path / "whole"
    (folder / "checkpoint-80").rename(tmp_path / "checkpoint-80")
    given = str(folder / "checkpoint-31") if resume == "by name" else True
    if given is True:
        (folder / "checkpoint-62").rename(tmp_path / "checkpoint-62")
    model, prior, trainer = hugging_face(folder, save_steps=31)
    trainer.train(resume_from_checkpoint=given)
    assert same(end(model, prior), expected)


def test_the_prior_is_in_the_state_of_the_trainer(tmp_path: Path) -> None:
    """Which is written last, in one piece, and holds plain JSON."""
    _, prior, trainer = hugging_face(tmp_path, save_steps=40, num_train_epochs=EPOCHS)
    trainer.train()
    held = json.loads((tmp_path / "checkpoint-80" / "trainer_state.json").read_text())
    saved = held["stateful_callbacks"]["depth/prior"]
    assert saved["step"] == STEPS
    assert saved["settings"]["target"] == "units"
    assert saved["settings"]["plan_steps"] == STEPS
    assert len(json.dumps(saved)) < 2000
    assert prior.state_dict()["step"] == STEPS


@pytest.mark.parametrize("early_stopping", [False, True])
def test_other_callbacks_that_are_restored_are_no_matter(
    tmp_path: Path, early_stopping: bool
) -> None:
    """`restore_callback_states_from_checkpoint` makes callbacks anew; ours stays the one it is."""
    from transformers import EarlyStoppingCallback

    options: dict[str, Any] = {
        "save_steps": 31,
        "eval_strategy": "steps",
        "eval_steps": 31,
        "metric_for_best_model": "loss",
        "restore_callback_states_from_checkpoint": True,
    }

    def made() -> tuple[Any, Any, Any]:
        model = Classifier()
        prior = prior_of(model.net)
        stopping = [EarlyStoppingCallback(90)] if early_stopping else []
        return model, prior, trainer_of(tmp_path, model, prior, *stopping, **options)

    model, prior, trainer = made()
    trainer.train()
    expected = end(model, prior)
    model, prior, trainer = made()
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-31"))
    assert same(end(model, prior), expected)


def test_a_checkpoint_without_a_prior_is_refused(tmp_path: Path) -> None:
    model = Classifier()
    trainer_of(tmp_path, model, None, max_steps=4, save_steps=2).train()
    _, _, trainer = hugging_face(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no state of a prior \('depth/prior'"):
        trainer.train(resume_from_checkpoint=True)


def test_a_checkpoint_of_another_prior_is_refused(tmp_path: Path) -> None:
    _, _, trainer = hugging_face(tmp_path, max_steps=4, save_steps=2)
    trainer.train()
    model = Classifier()
    other = prior_of(model.net, share="50 %")
    with pytest.raises(PathlenError, match=r"target_value is 10\.0 here and 8\.0 in the state"):
        trainer_of(tmp_path, model, other).train(resume_from_checkpoint=True)


def test_going_on_without_the_prior_is_told(tmp_path: Path) -> None:
    from pathlen.integrations import DepthTrainerCallback

    _, _, trainer = hugging_face(tmp_path, max_steps=4, save_steps=2)
    trainer.train()
    kwargs = {"x": EXAMPLE, "labels": torch.zeros(2, dtype=torch.long)}
    without = DepthTrainerCallback(kwargs=kwargs, outputs="logits")
    with pytest.warns(UserWarning, match="its units will not stay linear"):
        trainer_of(tmp_path, Classifier(), None, without, max_steps=4).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )


def test_the_best_model_comes_with_its_prior(tmp_path: Path) -> None:
    """What is loaded at the end has fewer linear units than the last step."""
    model, prior, trainer = hugging_face(
        tmp_path,
        save_steps=20,
        eval_strategy="steps",
        eval_steps=20,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        save_total_limit=5,
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-60")
    assert prior.state_dict()["step"] == 60
    assert prior.num_active == active(model.net) > 8
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prior.penalty()
    assert same(dict(model.state_dict()), before)


def test_a_model_that_the_trainer_makes_anew_is_not_that_of_the_prior(tmp_path: Path) -> None:
    model = Classifier()
    stranger = prior_of(Classifier().net)
    with pytest.raises(PathlenError, match=r"does not hold 2 of the slopes .*of another model"):
        trainer_of(tmp_path, model, stranger).train()


# ------------------------------------------------------------------ Lightning


def checkpointing(folder: Path) -> Any:
    from lightning.pytorch.callbacks import ModelCheckpoint

    return ModelCheckpoint(folder, save_top_k=-1, every_n_train_steps=31, filename="{step}")


@lightning_warnings
def test_lightning_goes_on(tmp_path: Path) -> None:
    module = module_of()
    trainer, batches = lightning_of(tmp_path, module, checkpointing(tmp_path))
    trainer.fit(module, batches)
    expected = end(module.model, module.prior)
    assert module.prior.progress.reached
    assert active(module.model) == module.prior.num_active < 20
    again = module_of()
    trainer, batches = lightning_of(tmp_path, again, checkpointing(tmp_path))
    trainer.fit(again, batches, ckpt_path=tmp_path / "step=31.ckpt")
    assert same(end(again.model, again.prior), expected)


@lightning_warnings
def test_lightning_refuses_what_does_not_fit(tmp_path: Path) -> None:
    dense = module_of(prior=False)
    trainer, batches = lightning_of(tmp_path / "dense", dense, max_steps=4, max_epochs=-1)
    trainer.fit(dense, batches)
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    module = module_of()
    trainer, _ = lightning_of(tmp_path, module, max_steps=4, max_epochs=-1)
    with pytest.raises(CheckpointError, match="holds no state of a prior"):
        trainer.fit(module, batches, ckpt_path=tmp_path / "dense.ckpt")
    trainer, _ = lightning_of(tmp_path, module, max_steps=4, max_epochs=-1)
    trainer.fit(module, batches)
    trainer.save_checkpoint(tmp_path / "linear.ckpt")
    other = module_of(share="50 %")
    trainer, _ = lightning_of(tmp_path, other)
    with pytest.raises(PathlenError, match=r"target_value is 10\.0 here and 8\.0 in the state"):
        trainer.fit(other, batches, ckpt_path=tmp_path / "linear.ckpt")
    without = module_of(prior=False)
    trainer, _ = lightning_of(tmp_path, without, max_steps=5, max_epochs=-1)
    with pytest.warns(UserWarning, match="its units will not stay linear"):
        trainer.fit(without, batches, ckpt_path=tmp_path / "linear.ckpt")


@lightning_warnings
@pytest.mark.parametrize("number", [0, 2])
def test_lightning_wants_all_slopes_in_one_optimizer(tmp_path: Path, number: int) -> None:
    module = module_of()
    first, second = module.model[1], module.model[4]
    weights = [module.model[0].weight]
    parts = {0: [weights], 2: [[first.slope, *weights], [second.slope]]}[number]
    module.automatic_optimization = False
    module.configure_optimizers = lambda: [torch.optim.SGD(part, lr=0.1) for part in parts]
    trainer, batches = lightning_of(
        tmp_path, module, accumulate_grad_batches=1, gradient_clip_val=None
    )
    with pytest.raises(PathlenError, match=rf"the slopes are in {number} of the {len(parts)} opti"):
        trainer.fit(module, batches)
