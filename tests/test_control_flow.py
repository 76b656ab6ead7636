"""Programs that are one of several, and control flow that torch keeps as an operator."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim

import pathlen
from pathlen.errors import ModelError, TraceError
from tests.constructs import Model, answer

X = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
SAID = "this example takes one of several branches"


def network(forward):
    """A program of layers 3 -> 3, `net` and `out`."""
    torch.manual_seed(0)
    return Model(forward, net=nn.Linear(3, 3), out=nn.Linear(3, 3))


# --- control flow as operators --------------------------------------------------------------------


def if_positive(m, x):
    return m.out(torch.cond(x.sum() > 0, lambda x: m.net(x).relu(), lambda x: x * 1.0, (x,)))


def three_times(m, x):
    def body(i, x):
        return i + 1, m.net(x).relu()

    return m.out(while_loop(lambda i, x: i < 3, body, (torch.tensor(0), x))[1])


def until_large(m, x):
    return m.out(while_loop(lambda x: x.sum() < 50, lambda x: ((2 * x).relu(),), (x,))[0])


def over_rows(m, x):
    def step(state, row):
        state = (state + m.net(row)).relu()
        return state, state * 1.0

    return m.out(scan(step, torch.zeros(3), x)[1])


def row_by_row(m, x):
    return m.out(torch_map(lambda row: m.net(row).relu(), x))


def sums(m, x):
    return m.out(associative_scan(lambda a, b: a + b, m.net(x), 0, combine_mode="generic"))


def loop(m, x):
    state, rows = torch.zeros(3), []
    for row in x:
        state = (state + m.net(row)).relu()
        rows.append(state * 1.0)
    return m.out(torch.stack(rows))


CONTROL_FLOW = {
    "cond, taken": (if_positive, lambda m, x: m.out(m.net(x).relu()), X, "example"),
    "cond, not taken": (if_positive, lambda m, x: m.out(x), -X, "example"),
    "while_loop that counts": (
        three_times,
        lambda m, x: m.out(m.net(m.net(m.net(x).relu()).relu()).relu()),
        X,
        "exact",
    ),
    "while_loop on data": (
        until_large,
        lambda m, x: m.out((2 * (2 * x).relu()).relu()),
        X,
        "example",
    ),
    "scan": (over_rows, loop, X, "exact"),
    "map": (row_by_row, lambda m, x: m.out(torch.stack([m.net(r).relu() for r in x])), X, "exact"),
    "associative_scan": (
        sums,
        lambda m, x: m.out((lambda h: torch.stack([h[0], h[0] + h[1]]))(m.net(x))),
        X,
        "exact",
    ),
}


@pytest.mark.filterwarnings("ignore")  # torch.export warns of itself
@pytest.mark.parametrize("name", CONTROL_FLOW)
def test_control_flow_is_followed_for_the_example(name):
    """As it comes and as torch.export writes it, it has the paths of the same in Python."""
    forward, plain, x, status = CONTROL_FLOW[name]
    model, expected = network(forward), answer(network(plain), x)
    assert answer(model, x, status=status) == expected
    program = torch.export.export(model, (x,), strict=False)
    report = pathlen.measure(program, exact=True)
    assert (report.path_count, report.average_path_length) == expected[:2]
    assert report.status == status
    assert any(SAID in cause for cause in report.causes) == (status == "example")


def test_control_flow_on_values_without_values():
    with torch.device("meta"):
        model = network(if_positive)
    with pytest.raises(TraceError, match=r"reads values.*give the model and its arguments values"):
        pathlen.measure(model, X.to("meta"))


# --- exported programs ----------------------------------------------------------------------------


class Grid(nn.Module):
    """A convolution, sizes computed with, a part without gradients, a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.read = nn.Linear(4, 2)

    def forward(self, image):
        h = self.norm(self.conv(image)).relu()
        with torch.no_grad():
            h = h + h.sigmoid()
        rows = image.shape[0] * image.shape[2]
        h = h.view(image.shape[0], -1, rows // image.shape[0], image.shape[3])
        return self.read(h.mean((2, 3)).to(torch.float32))


@pytest.fixture(scope="module")
def dynamic():
    sizes = {"image": {0: Dim("batch"), 2: Dim.AUTO, 3: Dim("width")}}
    image = torch.randn(2, 3, 6, 8)
    return torch.export.export(Grid().eval(), (image,), dynamic_shapes=sizes)


def grid():
    return answer(Grid(), torch.randn(2, 3, 6, 8))


def test_an_exported_program_that_computes_with_sizes(dynamic):
    expected = grid()
    assert answer_of(dynamic) == expected
    assert answer_of(dynamic, torch.randn(3, 3, 4, 10)) == expected
    layers = [layer.name for layer in pathlen.measure(dynamic).layers]
    assert {"image", "conv", "read"} <= set(layers)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch itself
def test_a_decomposed_program_asserts_things_that_have_no_path(dynamic):
    expected = grid()
    fixed = torch.export.export(Grid().eval(), (torch.randn(2, 3, 6, 8),))
    for program in (fixed, fixed.run_decompositions(), dynamic.run_decompositions()):
        assert answer_of(program) == expected


def test_a_program_without_its_example_takes_the_sizes_of_the_export(dynamic, tmp_path):
    torch.export.save(dynamic, tmp_path / "grid.pt2")
    program = torch.export.load(tmp_path / "grid.pt2")
    program._example_inputs = None
    assert answer_of(program) == grid()


def test_arguments_that_do_not_fit_an_exported_program(dynamic):
    with pytest.raises(TraceError, match="takes arguments of the form"):
        pathlen.measure(dynamic, (torch.randn(2, 3, 6, 8), torch.randn(2)))


def answer_of(program, *args):
    report = pathlen.measure(program, args or None, exact=True)
    assert report.status == "exact"
    return (
        report.path_count,
        report.average_path_length,
        report.normalized_average_path_length,
    )


# --- values and derivatives in one forward --------------------------------------------------------


def flow(m, x, adaptive=True):
    """Heun steps for a state and the divergence of its field, halved where they err too much."""

    def field(x):
        with torch.enable_grad():
            x = x.requires_grad_()
            y = m.out(m.net(x).tanh())
            parts = [torch.autograd.grad(y[:, i].sum(), x, create_graph=True)[0] for i in range(3)]
        return y, sum(part[:, i] for i, part in enumerate(parts))

    time, step, density = 0.0, 0.5, torch.zeros(len(x))
    while time < 1:
        slope, divergence = field(x)
        end, _ = field(x + step * slope)
        if adaptive and float((end - slope).abs().max()) > 1e3:
            step /= 2
            continue
        x = x + step * (slope + end) / 2
        density = density - step * divergence
        time += step
    return x, density


def test_a_forward_that_differentiates_and_reads_values():
    adaptive = network(flow)
    report = pathlen.measure(adaptive, X, exact=True)
    assert report.tracer == "eager recorder (real tensors, gradients)"
    fixed = pathlen.measure(network(lambda m, x: flow(m, x, adaptive=False)), X, exact=True)
    assert fixed.tracer == "eager recorder (gradients)"
    assert report.status == "example"
    assert report.path_count == fixed.path_count
    assert report.average_path_length == fixed.average_path_length


# --- what is said, and that it is said each time --------------------------------------------------

READ = {
    "a branch": lambda m, x: m.net(x).relu() if x.sum() > 0 else x,
    "a number": lambda m, x: m.net(x) * x.max().item(),
    "numbers in a list": lambda m, x: m.net(x) if sum(x[0].tolist()) > 0 else x,
    "an array": lambda m, x: m.net(x) if x.numpy().sum() > 0 else x,
    "rows by a mask": lambda m, x: m.net(x)[x[:, 0] > -100],
    "rows by their places": lambda m, x: m.net(x)[torch.where(x[:, 0] > -100)[0]],
    "a comparison": lambda m, x: m.net(x) if torch.allclose(x, x) else x,
    "a drawn branch": lambda m, x: m.net(x) if torch.rand(()) < 2 else x,
}
NOT_READ = {
    "a parameter": lambda m, x: m.net(x).relu() if m.net.bias.sum() < 100 else x,
    "a number of a parameter": lambda m, x: m.net(x).relu() * m.net.bias.max().item(),
    "drawn noise": lambda m, x: m.net(x).relu() + torch.randn_like(x),
    "rows by a mask that is written down": lambda m, x: m.net(x)[
        torch.tensor([True, False])
    ].relu(),
    "a drawn scale": lambda m, x: m.net(x).relu() * (torch.rand_like(x) < 0.9),
    "a dropout": lambda m, x: nn.functional.dropout(m.net(x).relu(), training=True),
    "an order": lambda m, x: m.net(x).relu().sort(0).values,
}
DRAWN = {
    "a mask": lambda m, x: torch.where(torch.rand(3) < 0.5, m.net(x).relu(), x),
    "an order": lambda m, x: m.net(x).relu()[:, torch.randperm(3)],
    "an order of features": lambda m, x: m.net(x)[:, torch.rand(3).argsort()].relu() + x,
}


@pytest.mark.parametrize("name", READ)
def test_a_value_that_decides_is_told(name):
    report = pathlen.measure(network(READ[name]), X)
    assert report.status == "example"
    assert sum(SAID in cause for cause in report.causes) == 1
    assert report.path_count == 9


@pytest.mark.parametrize("name", NOT_READ)
def test_what_no_example_changes_is_exact(name):
    report = pathlen.measure(network(NOT_READ[name]), X)
    assert report.status == "exact"
    assert not any(SAID in cause or "drawn" in cause for cause in report.causes)


@pytest.mark.parametrize("name", DRAWN)
def test_connections_that_are_drawn_are_the_same_each_time_and_told(name):
    model = network(DRAWN[name])
    graphs = []
    for seed in range(4):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        graphs.append(pathlen.trace(model, X))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    info = graphs[0].info
    assert info.status == "example"
    assert "numbers drawn at random choose connections" in info.causes[-1]
    for graph in graphs[1:]:
        assert np.array_equal(graph.indices, graphs[0].indices)
        assert np.array_equal(graph.activity, graphs[0].activity)


def test_branches_that_are_drawn_are_the_same_each_time():
    model = network(lambda m, x: m.net(x).relu() if torch.rand(()) < 0.5 else m.out(m.net(x)))
    counts = set()
    for seed in range(8):
        torch.manual_seed(seed)
        counts.add(pathlen.measure(model, X).path_count)
    assert len(counts) == 1


def test_a_model_that_raises_is_told_apart_from_one_that_reads_values():
    with pytest.raises(ModelError, match="raised ValueError"):
        pathlen.measure(network(lambda m, x: int("x")), X)
