"""Exported programs that say something else of their tensors than they compute are refused.

The path graph follows what is stated; a file may state a network that nobody could run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram

import pathlen
from pathlen.errors import TraceError


class Net(nn.Module):
    """A layer in two parts, each with an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.layer(x).split(4, 1)
        return self.last(torch.cat([torch.relu(one), torch.tanh(two)], 1))


def exported() -> ExportedProgram:
    return torch.export.export(Net().eval(), (torch.zeros(1, 4),))


def state(program: ExportedProgram, name: str, shape: Any, dtype: Any = torch.float32) -> None:
    """Let the node of a name state another form."""
    node = next(node for node in program.graph.nodes if node.name == name)
    with FakeTensorMode():
        node.meta["val"] = torch.empty(shape, dtype=dtype)


LIES: dict[str, tuple[Callable[[ExportedProgram], None], str]] = {
    "size of the input": (lambda p: state(p, "x", (1, 40)), "'linear', a call of aten.linear"),
    "dtype of the input": (lambda p: state(p, "x", (1, 4), torch.int64), r"\(1, 4\) of int64"),
    "dtype of a result": (
        lambda p: state(p, "relu", (1, 4), torch.float64),
        r"'relu', a call of aten.relu.default, returns \(1, 4\) of float64, and it returns",
    ),
    "size of a result": (lambda p: state(p, "tanh", (1, 400)), r"returns \(1, 400\).*\(1, 4\)"),
    "size of a part": (lambda p: state(p, "getitem_1", (1, 40)), "'getitem_1'"),
    "size of a parameter": (
        lambda p: (state(p, "p_layer_weight", (80, 4)), state(p, "linear", (1, 80))),  # type: ignore[func-returns-value]
        r"'layer.weight' is \(80, 4\) of float32, and its values are \(8, 4\)",
    ),
    "size of all": (lambda p: state(p, "x", (10**12, 4)), "'linear'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_told(lie: str) -> None:
    program = exported()
    assert pathlen.measure(program).num_active == 8
    change, message = LIES[lie]
    change(program)
    for edges in ("connections", "weights"):
        with pytest.raises(TraceError, match=message):
            pathlen.measure(program, edges=edges)  # type: ignore[arg-type]


class Several(nn.Module):
    """Calls that write, return several things, integers or views, or are of several dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(7, 4), nn.BatchNorm1d(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, tokens: torch.Tensor, x: torch.Tensor) -> Any:
        h = self.table(tokens) + self.norm(x).unsqueeze(1)
        h = self.attention(h, h, h)[0]
        best, places = h.double().topk(2, -1)
        h = h.clone()
        h[:, 0].mul_(2)
        return torch.relu(best.float()), h.gather(-1, places), h.sort(-1).values


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch itself
def test_what_is_true_passes() -> None:
    args = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 4)
    model = Several().eval()
    program = torch.export.export(model, args)
    for form in (program, program.run_decompositions()):
        report = pathlen.measure(form)
        assert report.num_active == pathlen.measure(model, args).num_active
