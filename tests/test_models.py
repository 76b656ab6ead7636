"""Kinds of models, nests of inputs and outputs, hooks and sharing: what a user may hand over."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import fx, nn

import pathlen
from pathlen.errors import ModelError
from pathlen.training.resnet import CifarResNet, channelwise_prelu
from tests.test_tracing import Model, X, assert_equal

# --- kinds of models ------------------------------------------------------------------------------


def test_an_fx_graph_module():
    model = Model().eval()
    traced = fx.symbolic_trace(model)
    assert isinstance(traced, fx.GraphModule)
    assert_equal(pathlen.trace(traced, X), pathlen.trace(model, X))


def test_an_exported_program_needs_no_arguments():
    model = CifarResNet(8, width=2, activation=channelwise_prelu).eval()
    image = torch.randn(1, 3, 8, 8)
    program = torch.export.export(model, (image,), strict=False)
    graph = pathlen.trace(program)
    assert_equal(graph, pathlen.trace(model, image))
    assert graph.info.tracer == "exported program"


def test_a_plain_function():
    weight = torch.randn(3, 4)
    report = pathlen.measure(lambda x: torch.relu(x @ weight), X, exact=True)
    assert (report.path_count, report.average_path_length) == (12, 1)


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, *, left, right=None, scale=1.0, nested=None):
        y = self.a(left) * scale
        if right is not None:
            y = y + torch.relu(self.b(right))
        for tensor in (nested or {}).values():
            y = y + self.b(tensor)
        return y


def test_keywords_only():
    right = torch.randn(2, 2)
    assert pathlen.measure(Keywords(), None, {"left": X}).path_count == 12
    report = pathlen.measure(Keywords(), (), {"left": X, "right": right, "scale": 2.0}, exact=True)
    assert report.path_count == 12 + 8  # 3 and 2 inputs, each to 4 outputs
    assert report.average_path_length == pytest.approx(8 / 20)
    names = [row.name for row in report.layers if row.operation == "input"]
    assert names == ["left", "right"]


def test_tensors_inside_containers_are_inputs():
    nested = {"one": torch.randn(2, 2), "two": torch.randn(2, 2)}
    graph = pathlen.trace(Keywords(), (), {"left": X, "nested": nested})
    inputs = [row.name for row in graph.layers if row.operation == "input"]
    assert inputs == ["left", "nested.one", "nested.two"]
    assert graph.num_inputs == 3 + 2 + 2


@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    loss: torch.Tensor | None = None
    mask: torch.Tensor | None = None


class Several(nn.Module):
    """h = relu(layer(x)) of 4 units, logits of 5, returned in some nest."""

    def __init__(self, pack):
        super().__init__()
        self.pack, self.first, self.second = pack, nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x):
        h = torch.relu(self.first(x))
        return self.pack(self.second(h), h)


PACKS = {
    "tuple": (lambda y, h: (y, (h,)), "0", "1.0"),
    "dict": (lambda y, h: {"logits": y, "hidden": [h]}, "logits", "hidden.0"),
    "dataclass": (lambda y, h: Result(y, (h,)), "logits", "hidden.0"),
    "dataclass with a mask": (lambda y, h: Result(y, (h,), mask=h > 0), "logits", "hidden.0"),
    "dict of a dataclass": (lambda y, h: {"r": Result(y, (h,))}, "r.logits", "r.hidden.0"),
}


@pytest.mark.parametrize("pack", PACKS)
def test_nests_of_outputs(pack):
    function, logits, hidden = PACKS[pack]
    model = Several(function)
    graph = pathlen.trace(model, X)
    assert [row.name for row in graph.layers if row.operation == "output"] == [logits, hidden]
    # 3 * 4 paths to h, 3 * 4 * 5 to the logits
    counts = {None: 72, logits: 60, hidden: 12, 0: 60, 1: 12}
    for outputs, count in counts.items():
        assert pathlen.measure(model, X, outputs=outputs).path_count == count, outputs
    assert pathlen.measure(model, X, outputs=[hidden, 0]).path_count == 72
    by_function = pathlen.measure(model, X, outputs=lambda name, tensor: tensor.shape[-1] == 5)
    assert by_function.path_count == 60
    if hidden.startswith("hidden"):
        assert pathlen.measure(model, X, outputs="hidden").path_count == 12


def test_caches_are_no_outputs_unless_asked_for():
    model = Several(lambda y, h: {"logits": y, "past_key_values": ((h, h),)})
    assert pathlen.measure(model, X).path_count == 60
    assert pathlen.measure(model, X, outputs="past_key_values").path_count == 24


# --- hooks and sharing ----------------------------------------------------------------------------


def test_a_hook_that_changes_an_output_is_part_of_the_model():
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity())
    model[1].register_forward_hook(lambda module, args, result: torch.relu(result))
    report = pathlen.measure(model, X, exact=True)
    assert (report.path_count, report.average_path_length) == (12, 1)


def test_a_hook_that_changes_an_input():
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity())
    model[1].register_forward_pre_hook(lambda module, args: (torch.relu(args[0]),))
    assert pathlen.measure(model, X).average_path_length == 1


def test_a_shared_module_is_a_site_at_each_call():
    # one layer and one activation called three times: 3^4 paths of length 3
    layer, relu = nn.Linear(3, 3), nn.ReLU()
    model = nn.Sequential(layer, relu, layer, relu, layer, relu)
    report = pathlen.measure(model, X, exact=True)
    assert (report.path_count, report.average_path_length) == (81, 3)
    assert report.num_active == 9
    assert len({row.name for row in report.layers}) == len(report.layers)


def test_tied_weights():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    assert pathlen.measure(model, X).path_count == 27


@pytest.mark.parametrize("parametrize", ["weight_norm", "spectral_norm"])
def test_weights_that_are_computed_from_parameters(parametrize):
    layer = getattr(nn.utils.parametrizations, parametrize)(nn.Linear(3, 4))
    report = pathlen.measure(nn.Sequential(layer, nn.ReLU()), X, exact=True)
    assert (report.path_count, report.average_path_length) == (12, 1)


def test_a_checkpointed_model():
    from torch.utils.checkpoint import checkpoint

    model = Model(lambda m, y: checkpoint(torch.tanh, y, use_reentrant=False))
    assert pathlen.measure(model, X).average_path_length == 2


def test_a_model_that_switches_grad_mode_and_autocast():
    def function(model, y):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            z = torch.tanh(model.out(y))
        return z.float()

    model = Model(function)
    model.out = nn.Linear(4, 2)
    report = pathlen.measure(model, X, exact=True)
    assert (report.path_count, report.average_path_length) == (24, 2)


def test_the_first_error_of_the_model_is_the_one_told():
    model = nn.Sequential(nn.Linear(7, 2))
    with pytest.raises(ModelError) as caught:
        pathlen.measure(model, X)
    assert "3" in str(caught.value)
    assert "7" in str(caught.value)
