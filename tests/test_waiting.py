"""What only the next call of a sum reads waits: the numbers are those of lowering every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pathlen
from pathlen.lowering import flat, regions
from pathlen.lowering.waits import Waits

X = torch.randn(2, 3)
Tree = Any


class Net(nn.Module):
    """A function of two layers' outputs."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.one(x), self.two(x))


def numbers(model: nn.Module) -> tuple[Any, ...]:
    report = pathlen.measure(model, X, exact=True)
    return (
        report.path_count,
        report.average_path_length,
        report.normalized_average_path_length,
        report.num_active,
    )


def without_waiting(model: nn.Module) -> tuple[Any, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Waits, "waiting", lambda self, call, lower: None)
        return numbers(model)


LEAVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "h": lambda h, d: h,
    "d": lambda h, d: d,
    "relu h": lambda h, d: h.relu(),
    "sin 2h": lambda h, d: (2 * h).sin(),
    "tanh d": lambda h, d: d.tanh(),
    "merge": lambda h, d: h.sigmoid() * d,
}
STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "add scaled": lambda a, b: torch.add(a, b, alpha=2),
    "scale": lambda a, b: a * 1.5,
    "shift": lambda a, b: a + 1,
    "average": lambda a, b: 0.9 * a + b,
    "scaled sum": lambda a, b: 0.9 * (a + b),
    "view": lambda a, b: a.view(2, 3, 1).view(2, 3) + b,
    "multiply": lambda a, b: a * b,
}
trees = st.recursive(
    st.sampled_from(sorted(LEAVES)),
    lambda inner: st.tuples(st.sampled_from(sorted(STEPS)), inner, inner),
    max_leaves=9,
)


def evaluated(tree: Tree, h: Tensor, d: Tensor) -> Tensor:
    if isinstance(tree, str):
        return LEAVES[tree](h, d)
    name, one, other = tree
    return STEPS[name](evaluated(one, h, d), evaluated(other, h, d))


@given(tree=trees, shared=st.booleans(), after=st.sampled_from(["none", "relu", "softmax", "mean"]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_numbers_are_those_of_lowering_every_call(tree: Tree, shared: bool, after: str) -> None:
    def function(h: Tensor, d: Tensor) -> Tensor:
        y = evaluated(tree, h, d)
        y = y + y.sigmoid() * d if shared else y
        ends = {"relu": y.relu(), "softmax": y.softmax(-1), "mean": y.mean(-1), "none": y}
        return ends[after]

    model = Net(function)
    assert numbers(model) == without_waiting(model)


def merge(h: Tensor, d: Tensor) -> Tensor:
    return h.sigmoid() * d


PRODUCTS_OF_SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "left": lambda h, d: (h + d.tanh() + 2 * d) * (h + d - (merge(h, d) + merge(h, d))),
    "right": lambda h, d: (h + d - (merge(h, d) + merge(h, d))) * (h + d.tanh() + 2 * d),
    "flat": lambda h, d: (h + d - merge(h, d) - merge(h, d)) * (d.tanh() + (h + 2 * d)),
}


@pytest.mark.parametrize("name", PRODUCTS_OF_SUMS)
def test_sums_that_would_multiply_a_tensor_by_itself_stay_factors(name: str) -> None:
    """h + a(d) times h + d a(h), beside tanh d: 3 activations a channel.

    Neither factor is multiplied out, in whatever order they are written.
    """
    model = Net(lambda h, d: d.tanh() + PRODUCTS_OF_SUMS[name](h, d))
    # paths to a channel: tanh d 3; h + a(d) 3 + 3; h + d a(h) 3 + (3 + 3)
    assert numbers(model)[0] == 3 * (3 + 6 + 9)
    assert numbers(model)[3] == 9
    assert numbers(model) == without_waiting(model)


def test_a_waiting_sum_that_is_viewed() -> None:
    model = Net(lambda h, d: (0.9 * (d + h)).view(2, 3, 1).view(2, 3) + h.sigmoid() * d)
    assert numbers(model) == without_waiting(model)


def sines(n: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda h, d: sum(((i + 1) * h).sin() for i in range(n)) + d


def polynomial(n: int) -> Callable[[Tensor, Tensor], Tensor]:
    def function(h: Tensor, d: Tensor) -> Tensor:
        y = h * 0
        for i in range(n):
            y = y * h + float(i + 1)
        return y + d

    return function


def branches(n: int) -> Callable[[Tensor, Tensor], Tensor]:
    def function(h: Tensor, d: Tensor) -> Tensor:
        y = d
        for _ in range(n):
            y = y + (h * d).relu()
        return y

    return function


def moving_average(n: int) -> Callable[[Tensor, Tensor], Tensor]:
    def function(h: Tensor, d: Tensor) -> Tensor:
        y = d
        for _ in range(n):
            y = 0.9 * y + (h * d).relu()
        return y

    return function


def recurrence(n: int) -> Callable[[Tensor, Tensor], Tensor]:
    def function(h: Tensor, d: Tensor) -> Tensor:
        state = h
        for _ in range(n):
            state = h.sigmoid() * state + h * h.tanh()
        return state + d

    return function


@pytest.mark.parametrize("form", [sines, polynomial, branches, moving_average, recurrence])
def test_the_work_grows_with_the_program(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {}
    for n in (40, 80):
        steps = 0

        def counted(original: Any) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal steps
                steps += 1
                return original(*args, **options)

            return call

        with monkeypatch.context() as patch:
            for module, name in ((regions, "followed_operands"), (flat, "inverted")):
                patch.setattr(module, name, counted(getattr(module, name)))
            pathlen.measure(Net(form(n)), X)
        counts[n] = steps
    assert counts[80] < 2.5 * counts[40]


def test_functions_of_one_tensor_are_one_unit_a_feature() -> None:
    for form in (sines, polynomial):
        report = pathlen.measure(Net(form(30)), X)
        assert report.num_active == 3
        assert report.path_count == 18  # 3 features: 3 inputs by way of h, 3 by way of d


def test_a_long_chain_of_one_tensor_takes_no_recursion() -> None:
    def function(h: Tensor, d: Tensor) -> Tensor:
        y = h * h
        for _ in range(1500):
            y = y * 1.001
        return y + d

    assert pathlen.measure(Net(function), X).num_active == 3
