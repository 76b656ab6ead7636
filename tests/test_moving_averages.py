"""Averages of weights (EMA, SWA) become linear where the model does, and are averages elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import pathlen
from pathlen.errors import PathlenError
from pathlen.training import (
    SparsityPrior,
    copy_frozen_slopes,
    make_linearizable,
    parameter_groups,
    renew_batch_norm,
    slopes_of,
)
from tests.vision import import_torchvision

EXAMPLE = torch.zeros(1, 4)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.GELU()]
    return make_linearizable(nn.Sequential(*layers, nn.Linear(6, 2)), EXAMPLE)


def active(model: nn.Module) -> int:
    return pathlen.measure(model, EXAMPLE).num_active


def timm_average(kind: str) -> Callable[[nn.Module], Any]:
    import_torchvision()
    import timm.utils

    return lambda model: getattr(timm.utils, kind)(model, decay=0.9999)


class Mapped:
    """An average that is a dictionary of tensors."""

    def __init__(self, model: nn.Module) -> None:
        self.tensors = {name: value.clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].mul_(0.9999).add_(value, alpha=1 - 0.9999)


class Nested(nn.Module):
    """A copy deep inside of another module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.holder = nn.ModuleDict({"net": copy.deepcopy(model)})

    def update(self, model: nn.Module) -> None:
        with torch.no_grad():
            for own, other in zip(self.parameters(), model.parameters(), strict=True):
                own.lerp_(other, 1e-4)


AVERAGES: dict[str, Callable[[nn.Module], Any]] = {
    "EMA of torch": lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9999)),
    "SWA": lambda m: AveragedModel(m, use_buffers=True),
    "timm v2": timm_average("ModelEmaV2"),
    "timm v3": timm_average("ModelEmaV3"),
    "by name": Mapped,
    "nested": Nested,
}


def update(average: Any, model: nn.Module) -> None:
    (getattr(average, "update_parameters", None) or average.update)(model)


def as_model(average: Any) -> nn.Module:
    """The averaged network itself."""
    if isinstance(average, Nested):
        return average.holder["net"]
    if isinstance(average, Mapped):
        model = network()
        model.load_state_dict(average.tensors)
        return model
    return average.module


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_become_as_shallow_as_the_model(name: str) -> None:
    """Measured on the average, as somebody would who wants to use it."""
    model = network()
    average, alone = AVERAGES[name](model), AVERAGES[name](model)
    prior = SparsityPrior(model, omega=0.3)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.1)
    prior.attach(optimizer)
    x, y = torch.randn(64, 4), torch.randint(0, 2, (64,))
    for _ in range(60):
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        for one in (average, alone):
            update(one, model)
        held = average.tensors if isinstance(average, Mapped) else average
        copy_frozen_slopes(model, held)
        slopes = [own.parameter.detach() for own in slopes_of(as_model(average))]
        for own, copied in zip(slopes_of(model), slopes, strict=True):
            assert bool((copied[own.parameter == 1] == 1).all())
    assert prior.num_active < 8
    assert active(as_model(average)) == active(model) == prior.num_active
    assert active(as_model(alone)) == 14  # it is what makes the difference
    one, other = as_model(average).state_dict(), as_model(alone).state_dict()
    for key, value in one.items():
        if "slope" not in key:
            assert torch.equal(value, other[key])  # weights and statistics are averages still


def test_slopes_that_are_not_linear_in_the_model_stay_averages() -> None:
    model = network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    update(average, model)
    with torch.no_grad():
        model[2].slope[:4] = torch.tensor([1.0, 0.999, 0.5, 0.0])
    update(average, model)
    copy_frozen_slopes(model, average)
    expected = torch.tensor([1.0, 0.4995, 0.25, 0.0])
    torch.testing.assert_close(average.module[2].slope.detach()[:4], expected)


def test_wrappers_of_the_model_and_of_the_average_do_not_matter() -> None:
    model = network()
    average = AveragedModel(model)
    with torch.no_grad():
        model[2].slope[:5] = 1
    compiled_of_parallel = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"module": model})})
    copy_frozen_slopes(compiled_of_parallel, average)
    assert int((average.module[2].slope == 1).sum()) == 5


def test_an_average_of_another_precision() -> None:
    model = network()
    average = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        model[2].slope[:5] = 1
    copy_frozen_slopes(model, average)
    assert int((average[2].slope == 1).sum()) == 5
    assert average[2].slope.dtype == torch.bfloat16


def test_statistics_of_an_average_are_renewed() -> None:
    """As if the averaged network had been run in training mode itself, which is done by hand."""
    model = network()
    average = AveragedModel(model)
    with torch.no_grad():
        model[2].slope[:5] = 1
        average.module[0].weight.mul_(3.0)
    copy_frozen_slopes(model, average)
    x = torch.randn(64, 4)
    assert renew_batch_norm(average, [(x,)]) == 1
    hidden = average.module[0](x)
    torch.testing.assert_close(average.module[1].running_mean, hidden.mean(0))
    torch.testing.assert_close(average.module[1].running_var, hidden.var(0))


def test_what_is_no_average_of_the_model_is_refused() -> None:
    model = network()
    with pytest.raises(PathlenError, match=r"no copy of the slopes of the model, such as '2\.slo"):
        copy_frozen_slopes(model, nn.Linear(2, 2))
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 6), nn.GELU())
    with pytest.raises(PathlenError, match="no copy"):
        copy_frozen_slopes(model, make_linearizable(wide, EXAMPLE))
    both = nn.ModuleDict({"fast": copy.deepcopy(model), "slow": copy.deepcopy(model)})
    with pytest.raises(PathlenError, match="several copies"):
        copy_frozen_slopes(model, both)
    with pytest.raises(PathlenError, match="has no slopes"):
        copy_frozen_slopes(nn.Linear(2, 2), model)


# ------------------------------------------------------------------ in the integrations


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(32, 4, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long())


@pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.:FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:The 'val_dataloader' does not have many workers",
    "ignore:SWA is currently only supported every epoch",
)
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", ["ema", "averaging", "swa", "own"])
def test_lightning(tmp_path: Any, kind: str, first: bool) -> None:
    """The network at the end is the average, and as linear as the one that was trained."""
    import_torchvision()
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import (
        EMAWeightAveraging,
        StochasticWeightAveraging,
        WeightAveraging,
    )

    from pathlen.integrations import DepthCallback

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.example_input_array = torch.zeros(2, 4)
            self.prior = SparsityPrior(self.model, omega=1.2)
            self.validated: list[int] = []

        def forward(self, x: Any) -> Any:
            return self.model(x)

        def training_step(self, batch: Any, _: int) -> Any:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            slopes = torch.cat([own.parameter for own in slopes_of(self.model)])
            self.validated.append(int((slopes != 1).sum()))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(parameter_groups(self.model, 0.0), lr=0.05)

    module = Module()
    average = AveragedModel(module.model, multi_avg_fn=get_ema_multi_avg_fn(0.9999))
    own = {
        "ema": [EMAWeightAveraging(decay=0.9999)],
        "averaging": [WeightAveraging()],
        "swa": [StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)],
        "own": [],
    }[kind]
    depth = DepthCallback(prior=module.prior, averages=[average])
    trainer = Trainer(
        max_epochs=8,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        callbacks=[depth, *own] if first else [*own, depth],
    )
    batches = DataLoader(data(), batch_size=8)
    trainer.fit(module, batches, batches)
    assert module.prior.num_active < 8
    assert active(module.model) == module.prior.num_active
    assert active(average.module) == module.prior.num_active
    slopes = torch.cat([own.parameter.detach() for own in slopes_of(module.model)])
    assert module.validated[-1] < 14  # Lightning evaluates the average
    if kind == "ema":  # nothing but what is linear has come far from where it began
        assert float(slopes[slopes < 0.99].max()) < 0.05


def test_hugging_face(tmp_path: Any) -> None:
    import_torchvision()
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from pathlen.integrations import DepthTrainerCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Any, labels: Any = None, **_: Any) -> Any:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    model = Model()
    prior = SparsityPrior(model.net, omega=2.0)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9999))

    class Averaging(TrainerCallback):
        def on_step_end(self, *_: Any, **kwargs: Any) -> None:
            average.update_parameters(kwargs["model"])

    kwargs = {"x": torch.zeros(2, 4), "labels": torch.zeros(2, dtype=torch.long)}
    depth = DepthTrainerCallback(kwargs=kwargs, prior=prior, averages=[average], outputs="logits")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=8,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[{"x": x, "labels": y} for x, y in data()],
        optimizers=(torch.optim.SGD(parameter_groups(model, 0.0), lr=0.05), None),
        callbacks=[depth, Averaging()],
    )
    trainer.train()
    assert prior.num_active < 8
    assert active(average.module.net) == active(model.net) == prior.num_active
