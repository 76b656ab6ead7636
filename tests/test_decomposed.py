"""A program decomposed to core ATen has the numbers of the program it was made from."""

import pytest
import torch
from torch import nn

import pathlen
from pathlen.specs.saved_programs import load_exported_program
from tests.constructs import HALF, Model, answer
from tests.vision import import_torchvision


def small_resnet():
    return import_torchvision().models.resnet18(), torch.randn(1, 3, 64, 64)


def squeeze_and_excitation():
    return import_torchvision().models.mobilenet_v3_small(), torch.randn(1, 3, 64, 64)


def vision_transformer():
    vision = import_torchvision().models.VisionTransformer(32, 8, 2, 2, 16, 32)
    return vision, torch.randn(1, 3, 32, 32)


def encoder_layer():
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), torch.randn(1, 5, 16)


def normalizations():
    layers = [nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.GroupNorm(2, 4), nn.GELU(), nn.Softmax(1)]
    return nn.Sequential(*layers), torch.randn(1, 3, 8, 8)


@pytest.mark.filterwarnings("ignore")  # what torch.export says of its own future
@pytest.mark.parametrize(
    "made",
    [small_resnet, squeeze_and_excitation, vision_transformer, encoder_layer, normalizations],
    ids=lambda made: made.__name__,
)
def test_decomposing_changes_no_number(made):
    model, example = made()
    whole = pathlen.measure(model, example, exact=True)
    program = torch.export.export(model.eval(), (example,), strict=False).run_decompositions()
    parts = pathlen.measure(program, exact=True)
    assert parts.status == whole.status == "exact"
    assert parts.num_active == whole.num_active
    assert parts.path_count == whole.path_count
    assert parts.average_path_length == whole.average_path_length
    assert parts.normalized_average_path_length == whole.normalized_average_path_length


class Interpolated(nn.Module):
    """A weighted mean by a gate, which core ATen computes from the nearer end."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.z, self.o = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        return self.o(torch.lerp(self.a(x), self.b(x).relu(), self.z(x).sigmoid()))


@pytest.mark.filterwarnings("ignore")  # what torch.export says of its own future
def test_interpolation_by_a_gate():
    x = torch.randn(2, 4)
    program = torch.export.export(Interpolated().eval(), (x,), strict=False).run_decompositions()
    # a + z (b - a): 4 + 4 + (4 + 4) ways; half of the walks go to a, and z and relu share the rest
    expected = (4 * 16 * 4, HALF, 3 * HALF / 4)
    assert answer(Interpolated(), x) == expected
    assert answer(program, x) == expected
    verdict = pathlen.verify(Interpolated(), x)
    assert verdict.ok, str(verdict)


class Recurrent(nn.Module):
    """Stacked recurrent layers, then a linear layer; first states are zeros or given."""

    def __init__(self, layer, states, **options):
        super().__init__()
        self.layer, self.states = layer(4, 3, num_layers=2, **options), states
        self.last = nn.Linear(self.layer.proj_size or 3 * (1 + self.layer.bidirectional), 2)

    def forward(self, x, *given):
        if self.states == "zeros":
            given = (torch.zeros(2 * (1 + self.layer.bidirectional), x.shape[1], 3),)
        return self.last(self.layer(x, *given)[0])


@pytest.mark.filterwarnings("ignore")  # what torch.export says of its own future
@pytest.mark.parametrize(
    ("layer", "states", "options"),
    [
        (nn.RNN, "default", {}),
        (nn.RNN, "zeros", {"bidirectional": True}),
        (nn.GRU, "given", {}),
        (nn.GRU, "zeros", {}),
        (nn.LSTM, "default", {"bidirectional": True, "batch_first": True}),
        (nn.LSTM, "default", {"proj_size": 2}),
    ],
)
def test_stacked_recurrent_layers_from_a_file(layer, states, options, tmp_path):
    model = Recurrent(layer, states, **options).eval()
    example = (torch.randn(3, 2, 4),)
    if states == "given":
        example += (torch.randn(2, 2, 3),)
    program = torch.export.export(model, example, strict=False).run_decompositions()
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = load_exported_program(tmp_path / "model.pt2")
    assert answer(loaded, *example) == answer(model, *example)


class Cells(nn.Module):
    """Cells of a GRU, written out or not."""

    def __init__(self, step):
        super().__init__()
        self.cell, self.step = nn.GRUCell(4, 4), step

    def forward(self, x):
        state = x.new_zeros(len(x), 4)
        for step in range(x.shape[1]):
            state = self.step(self.cell, x[:, step], state)
        return state


def by_hand(cell, x, state):
    read = nn.functional.linear(x, cell.weight_ih, cell.bias_ih).chunk(3, 1)
    held = nn.functional.linear(state, cell.weight_hh, cell.bias_hh).chunk(3, 1)
    reset, keep = (torch.sigmoid(held[n] + read[n]) for n in (0, 1))
    new = torch.tanh(read[2] + held[2] * reset)
    return (state - new) * keep + new


def test_what_a_decomposition_reads_twice_is_read_twice():
    """The last state is read by a layer too, and so is no part of the sum in the next step."""
    inputs = torch.randn(2, 3, 4)
    module = Cells(lambda cell, x, state: cell(x, state))
    assert answer(module, inputs) == answer(Cells(by_hand), inputs)


ATEN = torch.ops.aten
DERIVATIVES = {  # of grad g at x: the operator, and the same written out
    "threshold": (
        lambda g, x: ATEN.threshold_backward(g, x, 0),
        lambda g, x: torch.where(x <= 0, 0.0, g),
    ),
    "sigmoid": (ATEN.sigmoid_backward, lambda g, y: g * (y * (1 - y))),
    "tanh": (ATEN.tanh_backward, lambda g, y: g * (1 - y * y)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_derivative_has_the_numbers_of_the_same_written_out(name):
    x = torch.randn(5, 3)
    modules = {"a": nn.Linear(3, 4), "b": nn.Linear(3, 4), "c": nn.Linear(4, 1)}
    found = []
    for function in DERIVATIVES[name]:
        model = Model(lambda m, x, f=function: m.c(f(m.a(x), m.b(x))), **modules)
        found.append((answer(model, x), model(x)))
        assert pathlen.verify(model, x).ok
    (numbers, result), (written, expected) = found
    torch.testing.assert_close(result, expected)
    assert numbers == written


def test_the_mask_of_a_threshold_has_no_path():
    # 3 * 4 ways of the gradient; a comparison with a second layer only chooses
    modules = {"a": nn.Linear(3, 4), "b": nn.Linear(3, 4)}
    model = Model(lambda m, x, y: ATEN.threshold_backward(m.a(x), m.b(y), 0), **modules)
    x, y = torch.randn(5, 3), torch.randn(5, 3)
    assert answer(model, x, y) == (12, 0, 0)
    by_x, by_y = torch.autograd.functional.jacobian(
        lambda x, y: torch.where(model.b(y) <= 0, 0.0, model.a(x)), (x, y)
    )
    assert by_x.any()
    assert not by_y.any()


def test_the_derivative_of_a_relu_at_its_own_input_is_the_relu():
    model = Model(lambda m, x: ATEN.threshold_backward(m.a(x), m.a(x), 0), a=nn.Linear(3, 4))
    once = Model(lambda m, h: ATEN.threshold_backward(h, h, 0))
    assert answer(once, torch.randn(5, 3)) == (3, 1, 1)
    assert answer(model, torch.randn(5, 3))[0] == 12
