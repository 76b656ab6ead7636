"""Tracing leaves model and process as they were, and its rungs agree with each other."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import pathlen
from pathlen import Policy
from pathlen.errors import TraceError
from pathlen.lowering import lower
from pathlen.lowering.constants import Constants
from pathlen.lowering.values import Value
from pathlen.tracing import module_path, trace_model
from pathlen.tracing.eager import record
from pathlen.tracing.export import record_export
from pathlen.training.resnet import CifarResNet, channelwise_prelu

X = torch.randn(2, 3)


class Model(nn.Module):
    """A dense layer, batch norm, dropout, and a function of the model and its inputs."""

    def __init__(self, function=None):
        super().__init__()
        self.function = function
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.dropout, self.relu = nn.Dropout(0.5), nn.ReLU()

    def forward(self, x):
        y = self.relu(self.dropout(self.norm(self.layer(x))))
        return y if self.function is None else self.function(self, y)


# --- nothing is left behind -----------------------------------------------------------------------


def state_of(model):
    """Everything about a model and the process that tracing could change."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "flags": {name: module.training for name, module in model.named_modules()},
        "identities": {name: id(tensor) for name, tensor in tensors.items()},
        "bytes": {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()},
        "versions": {name: tensor._version for name, tensor in tensors.items()},
        "needs": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "gradients": {
            name: None if tensor.grad is None else tensor.grad.numpy().tobytes()
            for name, tensor in tensors.items()
        },
        "hooks": {
            name: [
                list(getattr(module, kind))
                for kind in (
                    "_forward_hooks",
                    "_forward_pre_hooks",
                    "_backward_hooks",
                    "_backward_pre_hooks",
                )
            ]
            for name, module in model.named_modules()
        },
        "global hooks": [
            len(getattr(torch.nn.modules.module, kind))
            for kind in ("_global_forward_hooks", "_global_forward_pre_hooks")
        ],
        "attributes": {
            name: {key: id(value) for key, value in vars(module).items() if key != "training"}
            for name, module in model.named_modules()
        },
        "random": (torch.get_rng_state().numpy().tobytes(), random.getstate()),
        "numpy": str(np.random.get_state()),
        "switches": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.backends.mha.get_fastpath_enabled(),
        ),
    }


def prepared(function=None):
    """A model with mixed modes, gradients, a frozen parameter and a hook."""
    model = Model()
    model(torch.randn(5, 3)).sum().backward()
    model.function = function
    model.layer.bias.requires_grad_(False)
    model.norm.eval()
    model.layer.register_forward_hook(lambda module, args, result: None)
    return model


def noisy(model, y):
    """Draws from every source of random numbers."""
    return y * random.random() + float(np.random.rand()) + torch.rand(1) + torch.randn_like(y)


def raising(model, y):
    noisy(model, y)
    raise ValueError("no")


def reads_values(model, y):
    return noisy(model, y) if y.sum() > -1e9 else y


def writes_to_buffers(model, y):
    model.norm.num_batches_tracked += 1
    model.norm.running_mean.mul_(0.5)
    return y


def writes_to_parameters(model, y):
    with torch.no_grad():
        model.layer.weight.mul_(2.0)
    return y


@pytest.mark.parametrize("function", [None, noisy, reads_values])
@pytest.mark.parametrize("mode", [True, False])
def test_model_and_process_are_as_before(function, mode):
    model = prepared(function).train(mode)
    model.norm.train(not mode)
    before = state_of(model)
    pathlen.measure(model, X)
    assert state_of(model) == before


@pytest.mark.parametrize("function", [raising, lambda m, y: y.argmax(-1), lambda m, y: y @ y])
def test_also_when_it_fails(function):
    model = prepared(function)
    before = state_of(model)
    with pytest.raises(TraceError):
        pathlen.measure(model, X)
    assert state_of(model) == before


def writes_through_a_view(model, y):
    model.norm.running_var[1:].add_(1.0)
    return y


def writes_and_reads_values(model, y):  # only real tensors can answer, the model's own
    model.norm.running_mean.mul_(0.5)
    return y if y.sum() > -1e9 else -y


@pytest.mark.parametrize(
    "function",
    [writes_to_buffers, writes_to_parameters, writes_through_a_view, writes_and_reads_values],
)
def test_also_when_the_forward_writes_to_its_own_state(function):
    model = prepared(function)
    before = state_of(model)
    report = pathlen.measure(model, X)
    after = state_of(model)
    del before["versions"], after["versions"]  # written, and written back
    assert after == before
    assert report.average_path_length == 1


def test_what_forward_stores_on_the_model_is_gone():
    # a tensor without data in a cache would break the next call
    def function(model, y):
        model.last = y
        model.history.append(y)
        if "table" not in model.cache:
            model.cache["table"] = torch.arange(4.0) + y.detach()
            model.register_buffer("grown", torch.ones(4))
        return y + model.cache["table"]

    model = prepared(function)
    model.history, model.cache, model.last = [], {}, None
    before = state_of(model)
    pathlen.measure(model, X)
    assert state_of(model) == before
    assert (model.history, model.cache, model.last) == ([], {}, None)
    assert not hasattr(model, "grown")
    assert model(X).shape == (2, 4)


def test_the_arguments_are_as_before():
    x = torch.randn(2, 3, requires_grad=True)
    before = x.detach().clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 4))
    report = pathlen.measure(model, x)
    assert torch.equal(x, before)
    assert x.grad is None
    assert report.average_path_length == 1


def test_the_model_still_trains():
    model = Model()
    pathlen.measure(model, X)
    model(X).sum().backward()
    assert model.layer.weight.grad is not None
    assert not model.layer.weight.is_inference()


def test_other_threads_may_run_models_meanwhile():
    other, stop, results = Model().eval(), threading.Event(), []

    def work():
        while not stop.is_set():
            results.append(other(X).shape)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        reports = [pathlen.measure(Model(), X, exact=True) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert {report.path_count for report in reports} == {12}
    assert set(results) == {(2, 4)}


# --- devices --------------------------------------------------------------------------------------


def test_a_model_on_the_meta_device():
    with torch.device("meta"):
        model, x = CifarResNet(8, width=2), torch.zeros(1, 3, 8, 8)
    real = pathlen.measure(CifarResNet(8, width=2), torch.zeros(1, 3, 8, 8), exact=True)
    report = pathlen.measure(model, x, exact=True)
    assert report.path_count == real.path_count
    assert report.average_path_length == real.average_path_length
    assert all(parameter.is_meta for parameter in model.parameters())


def test_inside_a_device_context():
    with torch.device("meta"):
        model, x = CifarResNet(8, width=2), torch.zeros(1, 3, 8, 8)
        report = pathlen.measure(model, x)
    assert report.normalized_average_path_length == 5.5


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operators_that_are_taken_apart_inside_a_device_context(device):
    cell = nn.GRUCell(4, 4)
    model = Model(lambda m, y: torch.einsum("bi,ij->bj", cell(y), cell.weight_hh[:4]))
    expected = pathlen.measure(model, X)
    with torch.device(device):
        found = pathlen.measure(model, X)
    assert found.average_path_length == expected.average_path_length > 0


def test_constants_are_computed_on_the_cpu_wherever_the_program_puts_them():
    places = torch.tensor([0.0, 2.0])
    model = Model(lambda m, y: (places.to(torch.device("meta"), torch.int64), y)[1])
    recording = record(model, (X,), {}, None, fake=False)
    (moved,) = (node for node in recording.graph.nodes if node.target == torch.ops.aten.to.device)
    constants = Constants()
    constants.add(recording.graph, recording.attributes)
    assert constants.of(Value(places, torch.int64, False, moved)).tolist() == [0, 2]


def test_a_model_on_the_meta_device_that_reads_values_cannot_be_traced():
    with torch.device("meta"):
        model, x = Model(lambda m, y: y if y.sum() > 0 else -y), torch.zeros(2, 3)
    with pytest.raises(TraceError, match=r"(?s)DataDependent|data.dependent|meta"):
        pathlen.measure(model, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_precision_does_not_matter(dtype):
    report = pathlen.measure(Model().to(dtype), X.to(dtype), exact=True)
    assert (report.path_count, report.average_path_length) == (12, 1)


# --- the ladder -----------------------------------------------------------------------------------


def branches(model, y):
    return torch.relu(y) if y.sum() > 0 else torch.tanh(y)


def reads_an_item(model, y):
    return y * (1 + int(y.max().item() * 0))


def indexes_by_mask(model, y):
    return y[:, y[0] > -1e9]


@pytest.mark.parametrize("function", [branches, reads_an_item, indexes_by_mask])
def test_data_dependent_control_flow_needs_real_tensors_and_this_is_said(function):
    report = pathlen.measure(Model(function), X, exact=True)
    assert report.tracer == "eager recorder (real tensors)"
    assert any("fake tensors" in cause and "Data" in cause for cause in report.causes) or any(
        "fake tensors" in cause and "Dynamic" in cause for cause in report.causes
    )
    assert report.path_count == 12
    assert report.average_path_length == (2 if function is branches else 1)


def test_the_tracer_is_named():
    assert pathlen.measure(Model(), X).tracer == "eager recorder (fake tensors)"
    assert pathlen.measure(Model(), X).causes == ()


class TransformerLayer(nn.TransformerEncoderLayer):
    """Small, and with the arguments of a stack's layer."""

    def __init__(self):
        super().__init__(4, 2, 5, batch_first=True)


class Rewriting(nn.Module):
    """In-place calls and views, which torch.export writes in a form of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.relu = nn.Linear(3, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.layer(x)
        y[:, :2] = self.relu(y[:, 2:].clone())
        y[:, 1:3].mul_(2).sigmoid_()
        first, second = y.chunk(2, dim=1)
        return torch.cat([first + second, F_gate(y)], dim=1)


def F_gate(y):  # noqa: N802
    a, b = y.split(2, dim=1)
    return a * torch.sigmoid(b)


SAMPLES = {
    "cnn": (lambda: CifarResNet(8, width=2, activation=channelwise_prelu), (1, 3, 8, 8)),
    "option A": (lambda: CifarResNet(8, width=2, shortcut="identity"), (1, 3, 8, 8)),
    "transformer": (TransformerLayer, (1, 3, 4)),
    "in place": (Rewriting, (2, 3)),
    "dropout": (Model, (2, 3)),
}


def assert_equal(one, other):
    for name in ("indptr", "indices", "activity", "kind", "layer"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert [row.operation for row in one.layers] == [row.operation for row in other.layers]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_rungs_give_equal_graphs(name):
    make, shape = SAMPLES[name]
    model, args = make(), (torch.randn(shape),)
    fake = lower(record(model, args, {}, None, fake=True), Policy())
    real = lower(record(model, args, {}, None, fake=False), Policy())
    exported = lower(record_export(model, args, {}, None), Policy())
    assert_equal(fake, real)
    assert fake.layers == real.layers
    assert_equal(fake, exported)
    assert [row.name for row in fake.layers] == [row.name for row in exported.layers]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("rung", ["fake", "real", "export"])
def test_a_recording_replays_to_the_models_output(name, rung):
    make, shape = SAMPLES[name]
    model, x = make().eval(), torch.randn(shape)
    if rung == "export":
        recording = record_export(model, (x,), {}, None)
    else:
        recording = record(model, (x,), {}, None, fake=rung == "fake")
    with torch.no_grad():
        (replayed,) = recording.to_module()(x.clone())
        torch.testing.assert_close(replayed, model(x))


def test_a_recording_knows_the_modules_and_shapes():
    recording = trace_model(nn.Sequential(Model(), nn.Linear(4, 5)), X, {}, None)
    calls = [node for node in recording.graph.nodes if node.op == "call_function"]
    assert [module_path(node) for node in calls][-1] == "1"
    assert "0.relu" in {module_path(node) for node in calls}
    assert [tuple(node.meta["val"].shape) for node in calls][-1] == (2, 5)
    assert recording.tracer == "eager recorder (fake tensors)"
