"""Easy mistakes are answered with what to write."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pathlen
from pathlen.errors import ModelError, PathlenError, TraceError

MODEL = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
X = torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("policy", "written"),
    [
        ("full", "pathlen.Policy(attention='full')"),
        ("softmax", "pathlen.Policy(count={'softmax'})"),
        ({"attention": "value"}, "pathlen.Policy(**{'attention': 'value'})"),
        (None, "pathlen.Policy("),
    ],
)
@pytest.mark.parametrize("call", [pathlen.measure, pathlen.trace, pathlen.verify])
def test_what_is_no_policy(call, policy, written):
    with pytest.raises(PathlenError) as caught:
        call(MODEL, X, policy=policy)
    assert written in str(caught.value)


@pytest.mark.parametrize(
    ("model", "written"),
    [
        (nn.ReLU, "ReLU()"),
        (MODEL.state_dict(), "load_state_dict"),
        ("resnet18", "pathlen measure torchvision:resnet18"),
        (7, "got int 7"),
        (None, "got NoneType"),
        (object(), "got object"),
    ],
)
@pytest.mark.parametrize("call", [pathlen.measure, pathlen.trace, pathlen.verify])
def test_what_is_no_model(call, model, written):
    with pytest.raises(TraceError) as caught:
        call(model, X)
    assert written in str(caught.value)


def test_a_graph_is_not_traced_again():
    graph = pathlen.trace(MODEL, X)
    for call in (pathlen.trace, pathlen.verify):
        with pytest.raises(TraceError, match="traced already"):
            call(graph)
    with pytest.raises(PathlenError, match="measured as it is"):
        pathlen.measure(graph, kwargs={"x": X})


@pytest.mark.parametrize(
    ("args", "written"),
    [
        ((1, 3), "torch.empty(1, 3)"),
        (X.shape, "torch.empty(1, 3)"),
        (X.numpy(), "torch.from_numpy"),
        ({"input": X}, "kwargs={...}"),
        (None, "args=(x,)"),
        (torch.zeros(1, 5), "args and kwargs"),
    ],
)
def test_arguments_that_a_model_does_not_take(args, written):
    with pytest.raises(ModelError) as caught:
        pathlen.measure(MODEL, args)
    assert written in str(caught.value)


@pytest.mark.parametrize("call", [pathlen.measure, pathlen.trace, pathlen.verify])
def test_keyword_arguments_that_are_positional(call):
    with pytest.raises(TraceError, match=r"not a Tensor.*args=\(x, y\)"):
        call(MODEL, X, X)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"input_axis": "1"}, TraceError),
        ({"input_axis": {"input": 1.0}}, TraceError),
        ({"memory_limit": "4GB", "edges": "weights"}, PathlenError),
        ({"edges": "weight"}, PathlenError),
        ({"backend": "Numba"}, PathlenError),
    ],
)
def test_options_that_do_not_fit(options, error):
    (name, *_) = options
    with pytest.raises(error, match=f"{name}|backend"):
        pathlen.measure(MODEL, X, **options)


@pytest.mark.parametrize("tolerance", ["0.1", None, 1, -0.1])
def test_a_tolerance_that_is_none(tolerance):
    with pytest.raises(PathlenError, match="tolerance="):
        pathlen.Policy(tolerance=tolerance)


def test_models_where_reports_are_asked_for():
    for call in (pathlen.layer_graph, lambda model: pathlen.compare(model, model)):
        with pytest.raises(PathlenError, match=r"pathlen\.measure"):
            call(MODEL)
