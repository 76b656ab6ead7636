"""Slopes in some parts of a model: chosen by path or pattern, and added to those that are there."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

import pathlen
from pathlen.errors import LinearizationError, PathlenError, SettingsError
from pathlen.training import CifarResNet, SparsityPrior, make_linearizable, slopes_of
from pathlen.training.make_model import make_model
from pathlen.training.recipe_file import dump_recipe, make_recipe
from pathlen.training.tasks import build_task
from tests.training_runs import TINY, changed

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A module called twice, a function and a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.last(self.act(self.first(x))))
        h = functional.gelu(self.first(h))
        h = self.last(h)
        return x + h * torch.sigmoid(h)


class Head(nn.Module):
    """An activation that belongs to the model around it, and one of its own."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.layer, self.own, self.shared = nn.Linear(4, 4), nn.Tanh(), [shared]

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self.layer(self.shared[0](self.layer(x))))


class Model(nn.Module):
    """A stem, two blocks, one of them called twice, a head, and functions of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.act = nn.SiLU()
        self.stem = nn.Sequential(nn.Linear(4, 4), nn.ELU())
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = Head(self.act)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        for block in self.blocks:
            x = block(x)
        x = functional.gelu(self.blocks[0](x).relu())
        return self.fc(self.head(x))


def names(model: nn.Module) -> list[str]:
    return [own.parameter_name for own in slopes_of(model)]


def randomize(model: nn.Module, seed: int = 0) -> None:
    """The same values for the same names, whichever there are."""
    for own in slopes_of(model):
        generator = torch.Generator().manual_seed(seed + crc32(own.parameter_name.encode()))
        nn.init.uniform_(own.parameter, 0.1, 0.9, generator=generator)


ALL = names(make_linearizable(Model(), X))
HEAD = ("act.slope_1", "head.own.slope")
CHOICES: dict[str, tuple[dict[str, Any], Callable[[str], bool]]] = {
    "a path": ({"only": "stem"}, lambda name: name.startswith("stem.")),
    "a module": ({"only": "blocks.1.act"}, lambda name: name.startswith("blocks.1.act.")),
    "a pattern": ({"only": ["blocks.*"]}, lambda name: name.startswith("blocks.")),
    "one of many": ({"only": "*.1"}, lambda name: name.startswith(("stem.1.", "blocks.1."))),
    "several": (
        {"only": ("stem", "blocks.[0]")},
        lambda name: name.startswith(("stem.", "blocks.0.")),
    ),
    "without": ({"exclude": "blocks"}, lambda name: not name.startswith("blocks.")),
    "both": (
        {"only": "blocks", "exclude": ["*.act"]},
        lambda name: name.startswith("blocks.") and ".act." not in name,
    ),
    # the calls that a module makes are in it, also where the activation is not
    "what it calls": ({"only": "head"}, lambda name: name in ("act.slope_1", "head.own.slope")),
    "all but that": (
        {"exclude": "head"},
        lambda name: name not in ("act.slope_1", "head.own.slope"),
    ),
    "the model's own": ({"only": ""}, lambda name: name in ("act.slope_0", "slope_0", "slope_1")),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_only_what_is_chosen_gets_slopes(choice: str) -> None:
    settings, expected = CHOICES[choice]
    plain = Model()
    model = make_linearizable(copy.deepcopy(plain), X, **settings)
    assert names(model) == [name for name in ALL if expected(name)]
    torch.testing.assert_close(model(X), plain(X))
    before = pathlen.measure(plain, X).num_active
    for own in slopes_of(model):
        nn.init.ones_(own.parameter)
    after = pathlen.measure(model, X).num_active
    assert after == before - sum(own.parameter.numel() for own in slopes_of(model))


ORDERS: dict[str, list[dict[str, Any]]] = {
    "from the stem": [{"only": "stem"}, {"only": "blocks"}, {}],
    "from the head": [{"only": "head"}, {"exclude": "blocks"}, {"only": "blocks.1"}, {}],
    "calls of one module": [{"only": ""}, {"only": "head"}, {}],
    "functions first": [{"exclude": ["*.act", "stem"]}, {"only": "*"}],
}


@pytest.mark.parametrize("order", ORDERS)
def test_parts_one_after_another_are_the_whole(order: str) -> None:
    whole = make_linearizable(Model(), X)
    randomize(whole)
    model = Model()
    for settings in ORDERS[order]:
        before = {own.parameter_name: own.parameter for own in slopes_of(model)}
        expected = model(X)
        make_linearizable(model, X, **settings)
        assert torch.equal(model(X), expected)  # new slopes are 0
        after = {own.parameter_name: own.parameter for own in slopes_of(model)}
        assert len(after) > len(before)
        assert all(after[name] is parameter for name, parameter in before.items())
        randomize(model)
    assert names(model) == names(whole) == ALL
    assert [own.name for own in slopes_of(model)] == [own.name for own in slopes_of(whole)]
    assert torch.equal(model(X), whole(X))
    assert [own.positions for own in slopes_of(model)] == [
        own.positions for own in slopes_of(whole)
    ]
    fresh = make_linearizable(Model(), X)
    fresh.load_state_dict(model.state_dict())  # strict
    assert torch.equal(fresh(X), whole(X))
    loss, other = model(X).square().sum(), whole(X).square().sum()
    for one, two in zip(
        torch.autograd.grad(loss, [own.parameter for own in slopes_of(model)]),
        torch.autograd.grad(other, [own.parameter for own in slopes_of(whole)]),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


class Around(nn.Module):
    """Something around a model that has slopes."""

    def __init__(self, inner: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.before, self.inner, self.after = nn.Linear(4, 4), inner, nn.Linear(2, 4)
        self.act, self.times = nn.ReLU(), times

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        for _ in range(self.times):
            x = functional.gelu(self.after(self.act(self.inner(x))))
        return x


def test_a_part_that_was_given_slopes_by_itself_becomes_one_of_the_whole() -> None:
    torch.manual_seed(1)
    plain = Around(Model())
    whole = make_linearizable(copy.deepcopy(plain), X)
    model = copy.deepcopy(plain)
    make_linearizable(model.inner, X)
    randomize(model)
    expected = model(X)
    kept = {own.parameter_name: own.parameter for own in slopes_of(model)}
    make_linearizable(model, X, only="act")
    make_linearizable(model, X)
    assert torch.equal(model(X), expected)
    assert names(model) == names(whole)
    own = {own.parameter_name: own for own in slopes_of(model)}
    assert all(own[name].parameter is parameter for name, parameter in kept.items())
    assert [own.name for own in slopes_of(model)] == [own.name for own in slopes_of(whole)]
    whole.load_state_dict(model.state_dict())
    assert torch.equal(whole(X), expected)
    monitor = pathlen.DepthMonitor(model, X)
    nn.init.ones_(slopes_of(model)[0].parameter)
    assert monitor.update().num_active == pathlen.measure(model, X).num_active


def test_numbers_of_slopes_stay_behind_padded_shortcuts() -> None:
    """Slope i is channel i, whichever slopes are there before."""
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    plain = CifarResNet(8, width=4)
    whole = make_linearizable(copy.deepcopy(plain), image)
    first = slopes_of(whole)[0].parameter_name.rsplit(".", 1)[0]
    model = copy.deepcopy(plain)
    for pattern in (first, "*"):
        make_linearizable(model, image, only=pattern)
    assert list(whole.state_dict()) == list(model.state_dict())
    randomize(whole)
    model.load_state_dict(whole.state_dict())
    model.eval()
    whole.eval()
    assert torch.equal(model(image), whole(image))


def test_parts_train_and_are_saved_as_any_model() -> None:
    torch.manual_seed(0)
    model = make_linearizable(Model(), X, only="blocks")
    prior = SparsityPrior(model, omega=1.0)
    assert prior.num_units == sum(own.parameter.numel() for own in slopes_of(model))
    (model(X).square().sum() + prior.penalty()).backward()
    make_linearizable(model, X, granularity="layer")
    assert SparsityPrior(model, omega=1.0).num_units == prior.num_units + 6


def test_patterns_that_match_nothing_are_errors_with_near_names() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"only": "sten"}, r"only='sten' matches no module of Model.* 'stem'"),
        ({"only": ["stem", "block.*"]}, r"only='block\.\*' matches no module.*'blocks"),
        ({"exclude": "heads"}, r"exclude='heads' matches no module.*'head'"),
        ({"exclude": "fc"}, r"exclude='fc' matches module 'fc', in which no activation"),
        ({"only": "stem", "exclude": "stem.*"}, "leave no activation"),
        ({"only": []}, "chooses nothing"),
        ({"only": 3}, "paths of modules"),
        ({"exclude": [None]}, "paths of modules"),
    ]
    for settings, said in cases:
        model = Model()
        with pytest.raises(PathlenError, match=said):
            make_linearizable(model, X, **settings)
        assert not slopes_of(model)


def test_what_would_change_slopes_that_are_there_is_refused() -> None:
    model = make_linearizable(Model(), X, only="stem")
    with pytest.raises(LinearizationError, match="chosen has slopes already"):
        make_linearizable(model, X, only="stem")
    with pytest.raises(LinearizationError, match="every activation of Model has slopes already"):
        make_linearizable(make_linearizable(model, X), X)
    with pytest.raises(LinearizationError, match="belongs to a larger model"):
        make_linearizable(model.blocks[0], X)
    twice = Around(Model(), times=2)
    make_linearizable(twice.inner, X)
    with pytest.raises(LinearizationError, match="is called 2 times"):
        make_linearizable(twice, X)
    assert len(slopes_of(twice)) == len(ALL)


class Without(nn.Module):
    """A part of a model that is not always called."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.on = nn.ReLU(), nn.ReLU(), True

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return functional.gelu(self.two(x) if self.on else x)


def test_slopes_that_a_trace_does_not_come_by_are_an_error() -> None:
    model = make_linearizable(Without(), X, only="two")
    model.on = False
    with pytest.raises(LinearizationError, match="'two' belong to a call that the model does not"):
        make_linearizable(model, X)
    model.on = True
    make_linearizable(model, X)
    assert names(model) == ["slope", "one.slope", "two.slope"]


def test_what_has_no_place_is_refused_only_where_it_is_chosen() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.act = nn.LSTM(4, 4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.rnn(x)[0])

    given = torch.randn(2, 1, 4)
    for settings in ({"only": "act"}, {"exclude": "rnn"}):
        model = make_linearizable(Mixed(), given, **settings)
        assert names(model) == ["act.slope"]
    with pytest.raises(LinearizationError, match="inside an operator"):
        make_linearizable(Mixed(), given, only="rnn", unplaced="keep")


def test_a_part_left_out_may_depart_from_its_trace() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.more = Block(), Block(), False

        def forward(self, x: Tensor) -> Tensor:
            x = self.two(self.one(x))
            return functional.gelu(functional.gelu(x)) if self.more else functional.gelu(x)

    plain = Late()
    model = make_linearizable(copy.deepcopy(plain), X, only="one")
    plain.more = model.more = True
    torch.testing.assert_close(model(X), plain(X))


class Shared(nn.Module):
    """A block under two names, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4)
        self.act, self.again = nn.GELU(), self.first

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.again(self.act(self.middle(self.first(x))))
        return y


@pytest.mark.parametrize("name", ["first", "again", "ag*", "again.1"])
def test_a_module_is_chosen_by_any_of_its_names(name: str) -> None:
    example = torch.zeros(1, 4)
    chosen = make_linearizable(Shared(), example, only=name)
    assert names(chosen) == ["first.1.slope_0", "first.1.slope_1"]
    rest = make_linearizable(Shared(), example, exclude=name)
    assert names(rest) == ["act.slope"]


def test_what_is_made_of_parts_computes_with_their_slopes() -> None:
    """`model[:3]` makes a new container of the model's class, and raised an AttributeError."""
    x = torch.randn(16, 4)
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Shared(), nn.Linear(4, 2))
    model = make_linearizable(plain, x[:1])
    randomize(model)
    layers, outputs = list(model), [x]
    for layer in layers:
        layer.register_forward_hook(lambda _, args, result: outputs.append(result))
    model(x)
    for layer in layers:
        layer._forward_hooks.clear()
    alpha = model[1].slope
    torch.testing.assert_close(outputs[2], torch.where(outputs[1] > 0, 1.0, alpha) * outputs[1])
    for part in (model[:2], nn.Sequential(*layers[:2]), copy.deepcopy(model[:2])):
        torch.testing.assert_close(part(x), outputs[2])
        assert names(part) == ["1.slope"]
    torch.testing.assert_close(model[3:](outputs[3]), outputs[4])
    assert pathlen.measure(model[:2], x[:1]).num_active == 4


def test_a_model_of_the_same_class_begins_without_slopes() -> None:
    x = torch.randn(16, 4)
    model = make_linearizable(Shared(), x[:1])
    fresh = type(model)()
    weights = {k: v for k, v in model.state_dict().items() if "slope" not in k}
    fresh.load_state_dict(weights)
    assert slopes_of(fresh) == ()
    torch.testing.assert_close(fresh(x), model(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(fresh))(x), model(x))
    randomize(model)
    make_linearizable(fresh, x[:1]).load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))
    assert type(model.act)()(x).equal(functional.gelu(x))


def test_recipes_choose_parts() -> None:
    whole = make_recipe(changed(TINY))
    every = names(make_model(whole, build_task(whole.task)))
    assert len(every) > 1
    for given in (every[0].removesuffix(".slope"), [every[0].removesuffix(".slope")]):
        recipe = make_recipe(changed(TINY, linearize__only=given))
        assert names(make_model(recipe, build_task(recipe.task))) == every[:1]
        assert make_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    recipe = make_recipe(changed(TINY, linearize__exclude=[every[0].removesuffix(".slope")]))
    assert names(make_model(recipe, build_task(recipe.task))) == every[1:]
    with pytest.raises(SettingsError, match=r"linearize\.only"):
        make_recipe(changed(TINY, linearize__only=[]))
    strange = make_recipe(changed(TINY, linearize__only="nothing"))
    with pytest.raises(LinearizationError, match="only='nothing' matches no module"):
        make_model(strange, build_task(strange.task))
