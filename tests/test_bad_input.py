"""Bad input: an error of our own class that says what, where and what to do; nothing half-made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pathlen
from pathlen import Policy, backends
from pathlen.errors import (
    ActivityError,
    BackendError,
    GraphError,
    ModelError,
    PathlenError,
    TraceError,
    UnsupportedOperation,
)

# Not `torch.empty`: on a NaN in what memory holds, `waits_for_a_value` never ends.
X = torch.zeros(2, 3)


def layer():
    return nn.Linear(3, 4)


class Model(nn.Module):
    """A dense layer and a function."""

    def __init__(self, function):
        super().__init__()
        self.function, self.layer = function, layer()

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


# --- models that do not run ---------------------------------------------------------------------


def waits_for_a_value(model, x):
    """Goes on for ever on tensors without data, whose values it cannot read."""
    y = model.layer(x)
    while True:
        y = y.relu()
        try:
            if bool((y >= 0).all()):
                return y
        except Exception as error:
            assert "data" in str(error).lower() or "Data" in type(error).__name__  # noqa: PT017


def test_a_model_that_hangs_on_tensors_without_data_is_run_on_real_ones(monkeypatch):
    monkeypatch.setattr("pathlen.tracing.eager.MOST_FAKE_CALLS", 500)
    report = pathlen.measure(Model(waits_for_a_value), X)
    assert report.tracer == "eager recorder (real tensors)"
    assert any("more than 500 operations" in cause for cause in report.causes)
    assert report.average_path_length == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="the model runs where there is CUDA")
def test_a_model_that_needs_cuda_is_told_what_to_do():
    with pytest.raises(ModelError, match=r"asks for CUDA, which is not available here.*save"):
        pathlen.measure(Model(lambda model, x: model.layer(x.cuda())), X)


def test_an_output_whose_shape_the_values_decide():
    report = pathlen.measure(
        Model(lambda model, x: model.layer(x)[torch.nonzero(x.sum(-1) > 0).squeeze(-1)]),
        torch.ones(2, 3),
    )
    assert report.tracer == "eager recorder (real tensors)"
    assert report.path_count == 12


# --- arguments that do not fit --------------------------------------------------------------------


def test_arguments_of_the_wrong_shape_show_the_models_own_error():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    with pytest.raises(ModelError, match=r"(?s)Sequential.*(3 and 5|2x3 and 5x4|\[2, 3\]).*args"):
        pathlen.measure(model, X)


@pytest.mark.parametrize("args", [(), (X, X)], ids=["too few", "too many"])
def test_the_wrong_number_of_arguments_shows_pythons_own_error(args):
    with pytest.raises(ModelError, match=r"(missing 1 required positional|takes 2 positional)"):
        pathlen.measure(layer(), args)


def test_an_unknown_keyword():
    with pytest.raises(ModelError, match="unexpected keyword argument 'picture'"):
        pathlen.measure(layer(), X, {"picture": X})


def test_a_model_that_raises_in_forward():
    def forward(model, x):
        raise ValueError("the widget is not assembled")

    with pytest.raises(ModelError, match=r"(?s)ValueError.*the widget is not assembled") as caught:
        pathlen.measure(Model(forward), X)
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_exception_that_is_no_error_of_the_model_goes_through():
    def forward(model, x):
        raise KeyboardInterrupt

    model = Model(forward)
    model.train()
    with pytest.raises(KeyboardInterrupt):
        pathlen.measure(model, X)
    assert model.training
    assert model.layer.training


def test_torchscript():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(layer())
    with pytest.raises(TraceError, match=r"TorchScript.*scripted from"):
        pathlen.measure(scripted, X)


# --- outputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda m, x: m.layer(x).argmax(-1), "int64"),
        (lambda m, x: m.layer(x) > 0, "bool"),
        (lambda m, x: (m.layer(x).argmax(-1), {"mask": x > 0}), "mask"),
        (lambda m, x: None, "no tensor"),
        (lambda m, x: x.shape, "no tensor"),
    ],
)
def test_no_floating_point_output(function, said):
    with pytest.raises(TraceError, match=f"(?s)no floating-point tensor.*{said}"):
        pathlen.measure(Model(function), X)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.layer(torch.ones(2, 3)),
        lambda m, x: torch.zeros_like(m.layer(x)),
        lambda m, x: m.layer(torch.eye(3)[x.argmax(-1)]),
        lambda m, x: m.layer.weight,
    ],
    ids=["constant input", "only the shape", "a place", "a parameter"],
)
def test_no_path_from_input_to_output(function):
    with pytest.raises(GraphError, match="no path"):
        pathlen.measure(Model(function), X)


@pytest.mark.parametrize("outputs", ["logits", 2, -1, ["a", "c"]])
def test_outputs_that_are_not_there_list_those_that_are(outputs):
    model = Model(lambda m, x: {"a": m.layer(x), "b": x})
    with pytest.raises(TraceError, match=r"(?s)outputs=.*a: \(2, 4\) torch.float32, b: \(2, 3\)"):
        pathlen.measure(model, X, outputs=outputs)


def test_outputs_that_are_chosen_by_a_function_that_chooses_none():
    with pytest.raises(TraceError, match="no floating-point tensor"):
        pathlen.measure(layer(), X, outputs=lambda name, tensor: False)


@pytest.mark.parametrize("axis", [2, -3, {"input": 5}])
def test_an_input_axis_that_is_not_there(axis):
    with pytest.raises(TraceError, match=r"input_axis=\S+ does not fit input 'input' \(2, 3\)"):
        pathlen.measure(layer(), X, input_axis=axis)


def test_an_input_axis_for_an_input_that_is_not_there():
    with pytest.raises(TraceError, match=r"(?s)input_axis.*'image'.*input"):
        pathlen.measure(layer(), X, input_axis={"image": 1})


# --- slopes ---------------------------------------------------------------------------------------


def with_nan(module):
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = float("nan")
    return module


class Blend(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return self.alpha * x + (1 - self.alpha) * torch.relu(x)


@pytest.mark.parametrize("activation", [nn.PReLU(4), nn.PReLU(), Blend()], ids=str)
def test_slopes_that_are_not_numbers(activation):
    model = nn.Sequential(layer(), with_nan(activation))
    with pytest.raises(ActivityError, match=r"parameter '1\.(weight|alpha)' holds NaN"):
        pathlen.measure(model, X)


def test_weights_that_are_not_numbers_do_not_matter():
    # connections do not depend on weights
    model = nn.Sequential(with_nan(layer()), nn.ReLU())
    assert pathlen.measure(model, X).average_path_length == 1


# --- backends, graphs, policies -------------------------------------------------------------------


def test_an_unknown_backend_lists_the_choices():
    with pytest.raises(BackendError, match=r"(?s)'quantum'.*numba.*scipy.*igraph.*exact"):
        pathlen.measure(layer(), X, backend="quantum")


@pytest.mark.parametrize("backend", ["numba", "scipy", "igraph"])
def test_fractions_from_a_backend_of_floats(backend):
    with pytest.raises(BackendError, match=f"'{backend}'.*exact=True.*'exact'"):
        pathlen.measure(layer(), X, backend=backend, exact=True)


def test_a_bad_backend_is_told_before_the_model_is_run():
    def forward(model, x):
        pytest.fail("the model was run")

    with pytest.raises(BackendError):
        pathlen.measure(Model(forward), X, backend="quantum")


@pytest.mark.parametrize("given", [{"args": X}, {"kwargs": {"x": X}}, {"args": ()}])
def test_arguments_given_with_a_graph(given):
    graph = pathlen.trace(layer(), X)
    with pytest.raises(PathlenError, match=r"graph.*args and kwargs"):
        pathlen.measure(graph, **given)


@pytest.mark.parametrize(
    "given",
    [{"outputs": 0}, {"input_axis": 1}, {"policy": Policy(attention="value")}],
    ids=["outputs", "input_axis", "policy"],
)
def test_options_of_tracing_given_with_a_graph(given):
    """They would be ignored without a word."""
    graph = pathlen.trace(layer(), X)
    with pytest.raises(PathlenError, match=next(iter(given))):
        pathlen.measure(graph, **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": {"activation", "pools"}}, "'pools'.*pooling"),
        ({"count": "activation"}, "set of names"),
        ({"count": {3}}, "3"),
        ({"attention": "none"}, "'none'.*'full'.*'value'"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_policies(given, said):
    with pytest.raises(PathlenError, match=said):
        Policy(**given)


# --- operations without a rule --------------------------------------------------------------------


@pytest.fixture(scope="module")
def operators():
    """Operators of which only the shapes are known: they cannot be run, and so not probed."""
    library = torch.library.Library("pathlen_tests", "DEF")
    for name in ("twirl", "swirl"):
        library.define(f"{name}(Tensor x) -> Tensor")
        torch.library.register_fake(f"pathlen_tests::{name}", torch.empty_like, lib=library)
    yield torch.ops.pathlen_tests
    library._destroy()


def test_all_unsupported_operations_are_listed_at_once(operators):
    class Twirl(nn.Module):
        def forward(self, x):
            return operators.twirl(x)

    def forward(model, x):
        return torch.relu(operators.swirl(model.twirl(model.layer(x))))

    model = Model(forward)
    model.twirl = Twirl()
    with pytest.raises(UnsupportedOperation) as caught:
        pathlen.measure(model, X)
    message = str(caught.value)
    listed = [line for line in message.splitlines() if "(2, 4)" in line]
    assert len(listed) == 2
    assert "pathlen_tests.twirl" in listed[0]
    assert "'twirl'" in listed[0]  # the module's path
    assert "pathlen_tests.swirl" in listed[1]
    assert message.startswith("2 operation(s)")
    assert "rule" in message


# --- all of them ----------------------------------------------------------------------------------


def test_all_errors_are_of_one_family_and_of_pythons_own():
    from pathlen import errors

    for name, error in vars(errors).items():
        if isinstance(error, type) and error is not PathlenError:
            assert issubclass(error, PathlenError), name
    assert issubclass(BackendError, LookupError)
    assert issubclass(ActivityError, ValueError)
    assert issubclass(ModelError, TraceError)
    assert backends.available()[0] == "numba"
