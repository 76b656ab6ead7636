"""A prior attached to an optimizer: the same in every loop, against the recurrence it is to follow.

Slopes of a network whose pre-activations are all positive get no gradient from the loss, so that
gradient descent on them is a recurrence that is written down in a line: alpha += rate * omega / (2
sqrt(1 - alpha)).
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pathlen
from pathlen.errors import PathlenError
from pathlen.training import (
    Plan,
    SparsityPrior,
    Target,
    make_linearizable,
    parameter_groups,
    slopes_of,
)
from pathlen.training.baselines.snl import SelectiveLinearization
from tests.vision import import_torchvision

EXAMPLE = torch.zeros(1, 4)
RATE, OMEGA, STEPS = 0.1, 0.4, 12


class Net(nn.Module):
    """One hidden layer, on whose positive inputs a slope changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(4))
            self.first.bias.zero_()

    def forward(self, x: Any, labels: Any = None, **_: Any) -> Any:
        logits = self.last(self.relu(self.first(x)))
        if labels is None:
            return logits
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def network() -> nn.Module:
    torch.manual_seed(0)
    model = make_linearizable(Net(), EXAMPLE)
    with torch.no_grad():
        model.relu.slope.copy_(torch.tensor([0.0, 0.1, 0.2, 0.3]))
    return model


def optimizer_of(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """Trains slopes only, at a rate that does not change."""
    groups = parameter_groups(model, 0.0, slope_learning_rate=RATE)
    return torch.optim.SGD(groups, lr=0.0, **options)


def data(number: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(number, 4, generator=generator) + 0.1
    return TensorDataset(x, torch.randint(0, 2, (number,), generator=generator))


def expected(steps: int = STEPS) -> torch.Tensor:
    """What gradient descent on the penalty makes of the slopes."""
    alphas = [0.0, 0.1, 0.2, 0.3]
    for _ in range(steps):
        alphas = [alpha + RATE * OMEGA / (2 * math.sqrt(1 - alpha)) for alpha in alphas]
    return torch.tensor(alphas)


def assert_expected(model: nn.Module, steps: int = STEPS) -> None:
    torch.testing.assert_close(model.relu.slope.detach(), expected(steps), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ a loop of one's own


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_plain_loop(accumulate: int, clip: float | None, scaled: bool) -> None:
    model = network()
    optimizer = optimizer_of(model)
    prior = SparsityPrior(model, omega=OMEGA)
    prior.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0)
    batches = DataLoader(data(4 * STEPS * accumulate), batch_size=4)
    for number, (x, y) in enumerate(batches):
        loss = nn.functional.cross_entropy(model(x), y) / accumulate
        scaler.scale(loss).backward()
        if (number + 1) % accumulate:
            continue
        if clip is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert_expected(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_and_a_penalty_that_is_in_the_loss_all_the_same(dtype: torch.dtype) -> None:
    model = network()
    optimizer = optimizer_of(model)
    prior = SparsityPrior(model, omega=OMEGA)
    prior.attach(optimizer)
    for x, y in DataLoader(data(4 * STEPS), batch_size=4):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(model(x), y)
        value = prior.penalty()
        assert not value.requires_grad
        torch.testing.assert_close(
            value, OMEGA * (1 - model.relu.slope.detach()).sqrt().sum(), check_dtype=False
        )
        (3 * (loss + value)).backward()  # counted once, and not three times
        optimizer.step()
        optimizer.zero_grad()
    assert_expected(model)


def test_the_slopes_go_on_as_with_the_penalty_in_the_loss() -> None:
    """With momentum, and slopes that the loss moves too: bit for bit the loop written by hand."""
    torch.manual_seed(1)
    x, y = torch.randn(32, 4), torch.randint(0, 2, (32,))
    models = [network(), network()]
    priors = [SparsityPrior(model, omega=0.05) for model in models]
    optimizers = [
        torch.optim.SGD(parameter_groups(model, 1e-3), lr=0.1, momentum=0.9) for model in models
    ]
    priors[0].attach(optimizers[0])
    for _ in range(40):
        for number, (model, prior, optimizer) in enumerate(
            zip(models, priors, optimizers, strict=True)
        ):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            (loss + (prior.penalty() if number else 0)).backward()
            optimizer.step()
            if number:
                prior.step()
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert priors[0].num_active == priors[1].num_active < 4


def test_closures_get_the_penalty_after_their_gradients() -> None:
    model = network()
    optimizer = optimizer_of(model)
    SparsityPrior(model, omega=OMEGA).attach(optimizer)
    for x, y in DataLoader(data(4 * STEPS), batch_size=4):

        def closure(x: Any = x, y: Any = y) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        penalty = OMEGA * (1 - model.relu.slope.detach()).sqrt().sum()
        plain = nn.functional.cross_entropy(model(x), y).detach()
        torch.testing.assert_close(optimizer.step(closure).detach(), plain + penalty)
    assert_expected(model)


def fused_optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """One that unscales gradients by itself."""
    groups = parameter_groups(model, 0.0, slope_learning_rate=RATE)
    return torch.optim.SGD(groups, lr=0.0, fused=True)


@pytest.mark.parametrize(("make", "scale"), [(optimizer_of, 4.0), (fused_optimizer_of, 64.0)])
def test_a_step_that_is_left_out_leaves_the_prior_out(make: Any, scale: float) -> None:
    model = network()
    optimizer = make(model)
    prior = SparsityPrior(model, omega=OMEGA)
    prior.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    for number in range(2 * STEPS):
        loss = model(torch.ones(1, 4)).sum()
        scaler.scale(loss * (math.inf if number % 2 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert prior.state_dict()["step"] == STEPS
    assert_expected(model)


def relu_prior() -> SparsityPrior:
    """Attached to an optimizer, of a model that can be pickled."""
    model = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 1))
    prior = SparsityPrior(model, omega=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    prior.attach(optimizer)
    assert prior.is_attached
    del optimizer
    assert not prior.is_attached  # it has gone, and the penalty has its gradient again
    assert prior.penalty().requires_grad
    return prior


def test_detached_again() -> None:
    model = network()
    optimizer = optimizer_of(model)
    prior = SparsityPrior(model, omega=OMEGA)
    attached = prior.attach(optimizer)
    assert prior.is_attached
    again = prior.attach(optimizer)  # replaces the first
    for _ in range(STEPS):
        optimizer.step()
        optimizer.zero_grad()
    assert_expected(model)
    for other in (copy.deepcopy(prior), pickle.loads(pickle.dumps(relu_prior()))):
        assert not other.is_attached
    again.remove()
    attached.remove()
    assert not prior.is_attached
    assert prior.penalty().requires_grad
    optimizer.step()
    assert_expected(model)


def test_proximal_steps_take_the_rate_of_the_slopes() -> None:
    models = [network(), network()]
    priors = [SparsityPrior(model, omega=OMEGA, method="proximal") for model in models]
    optimizer = optimizer_of(models[0])
    priors[0].attach(optimizer)
    for _ in range(STEPS):
        optimizer.step()
        priors[1].step(RATE)
    assert torch.equal(models[0].relu.slope, models[1].relu.slope)
    assert float(models[0].relu.slope.detach().min()) > 0.0


def test_baselines_are_attached_too() -> None:
    model = network()
    plan = Plan(Target("units", 1), steps=1000)
    baseline = SelectiveLinearization(model, plan, omega=0.5)
    optimizer = optimizer_of(model)
    baseline.attach(optimizer)
    before = model.relu.slope.detach().clone()
    for _ in range(3):
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(model.relu.slope.detach(), before + 3 * RATE * 0.5)


# ------------------------------------------------------------------ what would go wrong


def test_an_optimizer_that_does_not_hold_the_slopes_is_refused() -> None:
    torch.manual_seed(0)
    model = Net()
    early = torch.optim.SGD(model.parameters(), lr=0.1)  # before there are slopes
    make_linearizable(model, EXAMPLE)
    prior = SparsityPrior(model, omega=1.0)
    with pytest.raises(PathlenError, match=r"does not hold 1 of the slopes \(relu\.slope\)"):
        prior.attach(early)
    assert not prior.is_attached
    other = torch.optim.SGD(network().parameters(), lr=0.1)
    with pytest.raises(PathlenError, match="of another model"):
        prior.attach(other)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.0), lr=0.1)
    prior.attach(optimizer)
    optimizer.step()
    model.load_state_dict(network().state_dict(), assign=True)
    with pytest.raises(PathlenError, match="replaced since"):
        optimizer.step()


def test_weight_decay_on_slopes_is_told() -> None:
    model = network()
    with pytest.warns(UserWarning, match=r"weight decay pulls 1 slope\(s\).*relu\.slope"):
        SparsityPrior(model, omega=1.0).attach(
            torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
        )


class Forgetful(torch.optim.Optimizer):
    """Derives from torch's class without its constructor, so that no hooks are called."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inners, self.param_groups = [inner], inner.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.inners[0].step(closure)


def test_optimizers_without_hooks_are_refused() -> None:
    model = network()
    prior = SparsityPrior(model, omega=1.0)
    with pytest.raises(PathlenError, match="whose hooks are called, which those of Forgetful"):
        prior.attach(Forgetful(optimizer_of(model)))
    with pytest.raises(PathlenError, match="those of str are not"):
        prior.attach("sgd")  # type: ignore[arg-type]


def test_rates_that_differ_matter_to_proximal_steps_only() -> None:
    model = make_linearizable(
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)),
        EXAMPLE,
    )
    first, second = (own.parameter for own in slopes_of(model))
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second]}], lr=0.2)
    attached = SparsityPrior(model, omega=0.1).attach(optimizer)
    optimizer.step()
    torch.testing.assert_close(second.detach(), 2 * first.detach())
    attached.remove()
    other = SparsityPrior(model, omega=0.1, method="proximal").attach(optimizer)
    with pytest.raises(PathlenError, match=r"the learning rates \[0.1, 0.2\]"):
        optimizer.step()
    other.remove()


# ------------------------------------------------------------------ Accelerate, Fabric


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_accelerate(accumulate: int) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = network()
    prior = SparsityPrior(model, omega=OMEGA)
    batches = DataLoader(data(4 * STEPS * accumulate), batch_size=4)
    prepared, optimizer, batches = accelerator.prepare(model, optimizer_of(model), batches)
    prior.attach(optimizer)
    for x, y in batches:
        with accelerator.accumulate(prepared):
            loss = nn.functional.cross_entropy(prepared(x), y) + prior.penalty()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(prepared.parameters(), 0.01)
            optimizer.step()
            optimizer.zero_grad()
    assert prior.state_dict()["step"] == STEPS
    assert_expected(model)


def test_fabric() -> None:
    import_torchvision()
    from lightning import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = network()
    prior = SparsityPrior(model, omega=OMEGA)
    wrapped, optimizer = fabric.setup(model, optimizer_of(model))
    prior.attach(optimizer)
    for x, y in DataLoader(data(4 * STEPS), batch_size=4):
        fabric.backward(nn.functional.cross_entropy(wrapped(x), y))
        fabric.clip_gradients(wrapped, optimizer, max_norm=0.01)
        optimizer.step()
        optimizer.zero_grad()
    assert_expected(model)


# ------------------------------------------------------------------ Lightning

lightning_warnings = pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.:FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
)


def lightning_module(in_loss: bool = False, overflow_at: int | None = None) -> Any:
    import_torchvision()
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.example_input_array = EXAMPLE
            self.prior = SparsityPrior(self.model, omega=OMEGA)

        def forward(self, x: Any) -> Any:
            return self.model(x)

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            loss = nn.functional.cross_entropy(self(x).float(), y)
            if index == overflow_at:
                loss = loss * math.inf
            return loss + self.prior.penalty() if in_loss else loss

        def configure_optimizers(self) -> Any:
            return optimizer_of(self.model)

    return Module()


def fit(folder: Any, module: Any, batches: int, **options: Any) -> None:
    from lightning.pytorch import Trainer

    from pathlen.integrations import DepthCallback

    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[DepthCallback(prior=module.prior)],
        **options,
    )
    trainer.fit(module, DataLoader(data(4 * batches), batch_size=4))
    assert module.prior.state_dict()["step"] == STEPS
    assert_expected(module.model)
    assert not module.prior.is_attached


@lightning_warnings
@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize(
    ("clip", "precision", "in_loss"),
    [(None, "32-true", True), (1e-3, "32-true", False), (1e-3, "bf16-mixed", True)],
)
def test_lightning(
    tmp_path: Any, accumulate: int, clip: float | None, precision: Any, in_loss: bool
) -> None:
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    module = lightning_module(in_loss)
    fit(tmp_path, module, STEPS * accumulate, precision=precision, **options)


@lightning_warnings
def test_a_fit_that_ends_in_an_error_leaves_nothing_attached(tmp_path: Any) -> None:
    """A loop by hand that follows has the penalty with its gradient."""
    module = lightning_module()

    def fails(*_: Any) -> None:
        raise RuntimeError("no")

    module.training_step = fails
    optimizers = [optimizer_of(module.model)]  # is kept, as a Trainer keeps it
    module.configure_optimizers = lambda: optimizers[0]
    with pytest.raises(RuntimeError, match="no"):
        fit(tmp_path, module, 1)
    assert not module.prior.is_attached
    assert module.prior.penalty().requires_grad


@lightning_warnings
@pytest.mark.parametrize("clip", [None, 1e-3])
def test_lightning_with_gradients_that_are_scaled(tmp_path: Any, clip: float | None) -> None:
    """Sixteen bits on a CPU, with a step that overflows and is left out."""
    module = lightning_module(overflow_at=3)
    from lightning.pytorch.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    fit(tmp_path, module, STEPS + 1, plugins=[plugin], gradient_clip_val=clip)


# ------------------------------------------------------------------ the Hugging Face Trainer


def hugging_face(
    folder: Any, penalty: Callable[[Any], Any] | None = None, **options: Any
) -> tuple[nn.Module, SparsityPrior]:
    """Train as the documentation says; the model, and its prior."""
    import_torchvision()
    from transformers import Trainer, TrainingArguments

    from pathlen.integrations import DepthTrainerCallback

    model = network()
    prior = SparsityPrior(model, omega=OMEGA)

    class Penalized(Trainer):  # as was documented before
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, **others: Any
        ) -> Any:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **others)
            if penalty is not None:
                loss = loss + penalty(prior)
            return (loss, outputs) if return_outputs else loss

    optimizer = optimizer_of(model)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    steps = options.get("gradient_accumulation_steps", 1) * STEPS
    trainer = Penalized(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=1,
            per_device_train_batch_size=4,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            **options,
        ),
        train_dataset=[{"x": x, "labels": y} for x, y in data(4 * steps)],
        optimizers=(optimizer, constant),
        callbacks=[DepthTrainerCallback(EXAMPLE, prior=prior)],
    )
    trainer.model_accepts_loss_kwargs = True  # as models of transformers: losses are not divided
    trainer.train()
    return model, prior


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize(
    "options", [{"max_grad_norm": 0.0}, {"max_grad_norm": 1e-3}, {"bf16": True}], ids=str
)
def test_hugging_face(tmp_path: Any, accumulate: int, options: dict[str, Any]) -> None:
    model, prior = hugging_face(tmp_path, gradient_accumulation_steps=accumulate, **options)
    assert prior.state_dict()["step"] == STEPS
    assert_expected(model)
    assert not prior.is_attached


def test_hugging_face_with_the_penalty_in_the_loss(tmp_path: Any) -> None:
    model, _ = hugging_face(
        tmp_path, lambda prior: prior.penalty(), gradient_accumulation_steps=4, max_grad_norm=0.0
    )
    assert_expected(model)


# ------------------------------------------------------------------ the loop of `pathlen train`


def test_clipping_leaves_the_penalty_alone(tmp_path: Any) -> None:
    """A norm that clips everything else away: slopes move by the penalty, as if it were alone."""
    from pathlen.training import load_run, make_recipe, train

    def ends(**given: Any) -> torch.Tensor:
        recipe = make_recipe(
            {
                "task": {"name": "digits", "classes": 2},
                "model": {"name": "mlp", "width": 8, "depth": 2},
                "batch_size": 100,
                "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.0},
                "schedule": {"name": "constant"},
                "linearize": {"epochs": 2, "prior": {"omega": 0.2}},
                "machine": {"accelerator": "cpu", "threads": 1},
                **given,
            }
        )
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        result = train(recipe, folder)
        steps.append(result.summary["steps"])
        return torch.cat([own.parameter.detach() for own in slopes_of(load_run(folder).model)])

    steps: list[int] = []
    clipped = ends(clip_norm=1e-9)
    alpha = 0.0
    for _ in range(steps[0]):
        alpha += 0.05 * 0.2 / (2 * math.sqrt(1 - alpha))
    torch.testing.assert_close(clipped, torch.full_like(clipped, alpha))
    assert not torch.allclose(ends(), clipped, atol=1e-4)  # where it is not clipped, the loss pulls


def test_pathlen_is_used() -> None:
    """The network of this file is what its docstring says."""
    model = network()
    x = data(8).tensors[0]
    assert pathlen.measure(model, EXAMPLE).num_active == 4
    (gradient,) = torch.autograd.grad(model(x).sum(), [model.relu.slope])
    assert not gradient.any()
