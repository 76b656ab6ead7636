"""The operator alpha x + (1 - alpha) phi(x) against autograd on the formula itself."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pathlen.training.blend import _MARK, _TorchPReLU, blend

PHI = {"relu": functional.relu, "pure": functional.gelu, "any": torch.tanh}
SLOPES = {
    "positive": [0.3, 0.7, 1.0],
    "some zero": [0.0, 0.5, 1.0],
    "negative": [-0.4, 0.2, 1.3],
    "zero": [0.0, 0.0, 0.0],
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def formula(x: Tensor, slope: Tensor, form: str) -> Tensor:
    return slope * x + (1 - slope) * PHI[form](x)


@pytest.fixture(autouse=True, params=["small", "large", "among hooks"])
def _of_any_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """ReLU has a spelling for small tensors, for large ones and where others keep tensors."""
    if request.param != "small":
        monkeypatch.setattr("pathlen.training.blend._LARGE", 0)
    if request.param == "among hooks":

        def elsewhere(x: Tensor, slope: Tensor, in_place: bool) -> Tensor:
            own = x.clone() if in_place else x
            y: Tensor = _TorchPReLU.apply(own, slope)  # type: ignore[no-untyped-call]
            return x.copy_(y) if in_place else y

        monkeypatch.setattr("pathlen.training.blend._prelu_by_hand", elsewhere)


def gradients(y: Tensor, *wanted: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return torch.autograd.grad((y * weights).sum(), wanted)


@pytest.mark.parametrize("form", PHI)
@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("view", [(3, 1, 1), (3,)])
@pytest.mark.parametrize("in_place", [False, True])
def test_values_and_gradients_are_those_of_the_formula(
    form: str, slopes: str, view: tuple[int, ...], in_place: bool
) -> None:
    shape = (4, 3, 5, 2) if len(view) == 3 else (4, 5, 3)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    slope = torch.tensor(SLOPES[slopes], dtype=torch.float64).view(view).requires_grad_()
    given = x * 1 if in_place else x  # a leaf cannot be written to
    found = blend(given, slope, PHI[form], form, in_place=in_place)
    expected = formula(x, slope, form)
    assert (found is given) == in_place
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients(found, x, slope), gradients(expected, x, slope), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", PHI)
def test_without_gradients_it_is_the_same(form: str) -> None:
    x, slope = torch.randn(4, 3, 5), torch.tensor([0.0, 0.5, 1.0]).view(3, 1)
    kept = blend(x, slope.requires_grad_(), PHI[form], form)
    with torch.no_grad():
        torch.testing.assert_close(blend(x, slope, PHI[form], form), kept)


@pytest.mark.parametrize("form", PHI)
@pytest.mark.parametrize("trains", [False, True])
def test_at_slope_0_the_activation_is_what_it_was_bit_for_bit(form: str, trains: bool) -> None:
    x = torch.randn(64, 3, requires_grad=True)
    slope = torch.zeros(3, requires_grad=trains)
    assert torch.equal(blend(x, slope, PHI[form], form), PHI[form](x))


def test_large_relu_keeps_its_output_where_the_input_follows_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(800, 3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = blend(x, torch.full((3,), 0.5, requires_grad=True), functional.relu, "relu")
    assert sum(tensor.numel() > 3 for tensor in kept) == 1
    assert any(tensor.data_ptr() == y.data_ptr() for tensor in kept)


@pytest.mark.parametrize("form", PHI)
@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("in_place", [False, True])
def test_second_derivatives_are_those_of_the_formula(
    form: str, slopes: str, in_place: bool
) -> None:
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    x[0] = 0  # as where an image is padded
    x.requires_grad_()
    slope = torch.tensor(SLOPES[slopes], dtype=torch.float64).view(3, 1).requires_grad_()
    given = x * 1 if in_place else x
    second = []
    for y in (blend(given, slope, PHI[form], form, in_place=in_place), formula(x, slope, form)):
        first = torch.autograd.grad(y.pow(3).sum(), (x, slope), create_graph=True)
        total = sum((one.square().sum() for one in first), x.new_zeros(()))
        second.append(torch.autograd.grad(total, (x, slope)))
    for one, other in zip(*second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_others_keep_for_backward_gives_the_same(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a small tensor, as it comes
    x = torch.tensor([[0.0, -1.0, 2.0], [0.5, 0.0, -3.0]], dtype=dtype, requires_grad=True)
    slope = torch.tensor([0.3, 0.6, 0.0], dtype=dtype, requires_grad=True)
    found = []
    for hooked in (False, True):
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda kept: kept.detach().numpy().copy(), torch.from_numpy
        )
        with hooks if hooked else contextlib.nullcontext():
            y = blend(x * 1, slope, functional.relu, "relu")
        found.append(gradients(y, x, slope))
    expected = gradients(formula(x, slope, "relu"), x, slope)
    for one, other, right in zip(*found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        torch.testing.assert_close(one, right)


def test_only_so_many_nodes_have_a_hook_at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("pathlen.training.blend._MOST_HOOKED", sys.getrefcount(_MARK) + 5)
    slope = torch.full((3,), 0.5, requires_grad=True)

    def chain(length: int) -> Counter[str]:
        h = torch.randn(2, 3, requires_grad=True)
        names: Counter[str] = Counter()
        for _ in range(length):
            h = blend(h, slope, functional.relu, "relu")
            names[type(h.grad_fn).__name__] += 1
        h.sum().backward()
        return names

    for _ in range(2):  # freed ones do not count
        assert sorted(chain(9).values()) == [3, 6]


def test_an_input_that_is_overwritten_is_told_in_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    x = torch.randn(4, 3, requires_grad=True) * 1
    y = blend(x, torch.full((3,), 0.5, requires_grad=True), functional.relu, "relu")
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        y.sum().backward()


@pytest.mark.parametrize("form", PHI)
def test_slopes_that_the_input_was_computed_from_are_derived_by_once(form: str) -> None:
    slope = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=True)
    data = torch.randn(4, 2, dtype=torch.float64)
    second = []
    for act in (lambda x, a: blend(x, a, PHI[form], form), lambda x, a: formula(x, a, form)):
        y = act(act(data, slope), slope)  # the second input came from the same slopes
        (first,) = torch.autograd.grad(y.pow(3).sum(), slope, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), slope)[0])
    torch.testing.assert_close(*second, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("slopes", SLOPES)
def test_relu_in_half_precision_has_the_gradients_of_the_formula(
    slopes: str, in_place: bool
) -> None:
    x = torch.randn(4, 3, 5, 2).bfloat16().requires_grad_()
    slope = torch.tensor(SLOPES[slopes]).view(3, 1, 1).requires_grad_()
    found = blend(x * 1 if in_place else x, slope, functional.relu, "relu", in_place=in_place)
    exact = x.detach().double().requires_grad_()
    expected = formula(exact, slope.double(), "relu")
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)
    for one, other in zip(
        gradients(found, x, slope), gradients(expected, exact, slope), strict=True
    ):
        torch.testing.assert_close(one.double(), other.double(), rtol=3e-2, atol=3e-2)


def test_half_precision_inputs_keep_their_dtype() -> None:
    x = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
    slope = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    for form, phi in PHI.items():
        y = blend(x, slope, phi, form)
        assert y.dtype == torch.bfloat16
        y.sum().backward()
    assert slope.grad is not None
    assert slope.grad.dtype == torch.float32
