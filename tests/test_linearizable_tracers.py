"""Models with slopes through compilers, tracers, pickle and parametrizations: alike, or refused."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

import pathlen
from pathlen.errors import LinearizationError, PathlenError
from pathlen.training import make_linearizable, slopes_of
from tests.vision import import_torchvision

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


class Modules(nn.Module):
    """Activations that are modules, one called once each."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu, self.elu = nn.Linear(4, 4), nn.ReLU(), nn.ELU(inplace=True)
        self.prelu, self.gelu = nn.PReLU(4), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.layer(self.relu(self.layer(x))))
        return self.layer(self.gelu(self.layer(self.elu(self.layer(x)))))


class Functions(nn.Module):
    """Activations that are functions, methods, in place, formulas with operators."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(functional.relu(self.layer(x)))
        h = h * torch.sigmoid(1.702 * h)
        h = self.layer(self.layer(h).relu_())
        h = torch.log(1 + torch.exp(h))
        return self.layer(torch.tanh(self.layer(h) ** 2))


class Shared(nn.Module):
    """Activations that are called several times, in blocks that are, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.block = nn.Linear(4, 4), nn.Tanh(), Functions()

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.act(self.layer(x)))
        return self.act(self.block(self.act(x)))


KINDS = (Modules, Functions, Shared)


def with_slopes(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = make_linearizable(kind(), X)
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter, 0.1, 0.9)
    return model


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return with_slopes(request.param)


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def exported(model: nn.Module, strict: bool) -> Callable[[Tensor], Tensor]:
    sizes = ({0: torch.export.Dim("batch", max=64)},)
    program = torch.export.export(model, (X,), dynamic_shapes=sizes, strict=strict)
    assert program.state_dict.keys() == model.state_dict().keys()
    run: Any = program.module()
    return run


def traced_by_torchscript(model: nn.Module) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
        traced: Any = torch.jit.trace(model, X)
    return traced


WAYS: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
    "jit.trace": traced_by_torchscript,
    "make_fx": lambda model: make_fx(model)(X),
    "export": lambda model: exported(model, strict=False),
    "strict export": lambda model: exported(model, strict=True),
}


@pytest.mark.filterwarnings("ignore:.*certain side effects")  # torch's, of the count of calls
@pytest.mark.parametrize("way", WAYS)
def test_traced_programs_compute_the_same(model: nn.Module, way: str) -> None:
    found = WAYS[way](model)
    for given in (X, X[:3] * 2):
        torch.testing.assert_close(found(given), model(given))


def test_torchscript_is_refused(model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(LinearizationError, match=r"torch\.export\.export or torch\.jit\.trace"):
            torch.jit.script(nn.Sequential(nn.Linear(4, 4), model))


def test_symbolic_traces_of_modules_have_their_slopes() -> None:
    class Swish(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x)

    model = make_linearizable(nn.Sequential(Modules(), Swish(), nn.Linear(4, 2)), X)
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter, 0.1, 0.9)
    traced = torch.fx.symbolic_trace(model)
    for given in (X, X[:2]):
        torch.testing.assert_close(traced(given), model(given))
    slopes = [own.parameter for own in slopes_of(model)]
    one, other = (torch.autograd.grad(net(X).square().sum(), slopes) for net in (traced, model))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [Functions, Shared])
def test_symbolic_traces_that_would_lose_slopes_are_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(LinearizationError, match=r"symbolic_trace.* Use torch\.export"):
        torch.fx.symbolic_trace(with_slopes(kind))


def test_feature_extractors_of_torchvision() -> None:
    vision = import_torchvision()
    from torchvision.models.feature_extraction import create_feature_extractor

    image = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    model = make_linearizable(vision.models.vgg11(num_classes=3), image).eval()
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter)
    features = create_feature_extractor(model, ["features.4", "classifier.1"])(image)
    torch.testing.assert_close(features["features.4"], model.features[:5](image))
    shared = make_linearizable(vision.models.resnet18(num_classes=3), image)
    with pytest.raises(LinearizationError, match="create_feature_extractor"):
        create_feature_extractor(shared, ["layer1"])


def deep(count: int, kind: str) -> nn.Module:
    """A model with a number of activations, each of which has slopes."""

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            for step in range(count):
                x = functional.relu(x + 0.1 * step)
            return self.layer(x)

    if kind == "functions":
        return Called()
    return nn.Sequential(*[part() for _ in range(count) for part in (nn.ReLU, Scaled)])


class Scaled(nn.Module):
    """A layer that is quick to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + 0.1


@pytest.mark.parametrize("kind", ["modules", "functions"])
@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_one_graph_for_any_number_of_calls_and_any_batch(kind: str, count: int) -> None:
    model = make_linearizable(deep(count, kind), X)
    assert len(slopes_of(model)) == count
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter, 0.1, 0.9)
    counter = CompileCounter()
    whole = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for training in (True, False, True):
        model.train(training)
        for size in (5, 2, 64, 7):
            x = torch.randn(size, 4)
            torch.testing.assert_close(whole(x), model(x))
    assert counter.frame_count == 1  # nothing in it depends on the mode


class Mixed(nn.Module):
    """A block with a module that is called twice, one that is called once, functions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.relu = nn.Linear(4, 4), nn.Tanh(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.layer(self.act(self.layer(self.relu(x)))))
        h = self.layer(functional.gelu(self.layer(h)))
        return h * torch.sigmoid(h)


@torch.no_grad()  # torch warns of itself where a compiled part follows another one
def test_like_blocks_that_are_compiled_by_themselves_share_what_is_compiled() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(*[Mixed() for _ in range(12)])
    model = make_linearizable(copy.deepcopy(plain), X)
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter, 0.1, 0.9)
    expected = model(X)
    counts = []
    for net in (plain, model):
        torch.compiler.reset()
        counter = CompileCounter()
        for block in net:
            block.compile(backend=counter, fullgraph=True)
        for _ in range(2):
            found = net(X)
        counts.append(counter.frame_count)
    torch.testing.assert_close(found, expected)
    assert counts[1] == counts[0]


class Broken(nn.Module):
    """A forward that Dynamo cannot follow in one piece, before, between and behind activations."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(functional.gelu(self.layer(x)))
        torch._dynamo.graph_break()
        h = self.act(self.layer(functional.relu(functional.gelu(h) + 1)))
        h = self.layer(h)
        h = h * torch.sigmoid(h)
        torch._dynamo.graph_break()
        return torch.tanh(self.layer(self.act(self.layer(h))))


class Around(nn.Module):
    """Blocks, and functions of the model's own."""

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return functional.gelu(torch.tanh(x))


@torch.no_grad()  # torch warns of itself where a compiled part follows another one
@pytest.mark.parametrize("by_parts", [False, True])
@pytest.mark.parametrize("block", [Broken, Mixed])
def test_what_is_compiled_in_pieces_computes_the_same(
    block: type[nn.Module], by_parts: bool
) -> None:
    torch.manual_seed(0)
    model = make_linearizable(Around(block), X)
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter, 0.1, 0.9)
    inputs = [torch.randn(size, 4) for size in (3, 3, 5)]
    expected = [model(x) for x in inputs]
    if by_parts:
        for part in model.blocks:
            part.compile(backend="eager")
    else:
        model.compile(backend="eager")
    torch.testing.assert_close([model(x) for x in inputs], expected)


def test_what_is_compiled_already_is_to_be_compiled_later() -> None:
    whole: Any = torch.compile(Modules(), backend="eager")
    for made in (whole, nn.Sequential(whole)):
        with pytest.raises(LinearizationError, match=r"torch\.compile\(make_linearizable\(model"):
            make_linearizable(made, X)
    model = Functions()
    plain = copy.deepcopy(model)
    model.compile(backend="eager")  # in place, and anew where the class is another
    model(X)
    make_linearizable(model, X)
    assert len(slopes_of(model)) == len(slopes_of(make_linearizable(plain, X)))
    for own in slopes_of(model):
        nn.init.ones_(own.parameter)
    linear = model.layer
    with torch.no_grad():  # torch warns of itself where a compiled part follows another one
        torch.testing.assert_close(model(X), linear(linear(linear(linear(linear(linear(X)))))))


def test_whole_modules_are_pickled(model: nn.Module) -> None:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(X), model(X))
        assert other.state_dict().keys() == model.state_dict().keys()
        nn.init.ones_(slopes_of(other)[0].parameter)  # and it is a copy
        assert not torch.equal(other(X), model(X))
        assert type(other).__qualname__ == type(model).__qualname__
    class_of = type(loaded)
    assert class_of is type(model)


def test_what_is_pickled_goes_on_as_a_model_with_slopes(model: nn.Module) -> None:
    loaded = pickle.loads(pickle.dumps(model))
    with pytest.raises(LinearizationError, match="has slopes already"):
        make_linearizable(loaded, X)
    assert pathlen.measure(loaded, X).num_active == pathlen.measure(model, X).num_active


class Bounded(nn.Module):
    """Slopes between 0 and 1."""

    def forward(self, raw: Tensor) -> Tensor:
        return raw.clamp(0, 1)


def test_parametrized_slopes_are_used_and_not_listed() -> None:
    model = with_slopes(Modules)
    expected = model(X)
    parametrize.register_parametrization(model.relu, "slope", Bounded())
    torch.testing.assert_close(model(X), expected)
    with pytest.raises(PathlenError, match=r"'relu\.slope' are no parameter.*remove_param"):
        slopes_of(model)
    model.load_state_dict(model.state_dict())
    parametrize.remove_parametrizations(model.relu, "slope")
    assert len(slopes_of(model)) == 4
    torch.testing.assert_close(model(X), expected)


class Weighted(nn.Module):
    """A module with a weight of its own that calls activations."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(functional.linear(functional.relu(x), self.weight))


@pytest.mark.parametrize("first", [True, False])
def test_parametrized_weights_come_and_go(first: bool) -> None:
    torch.manual_seed(0)
    model = Weighted()
    if first:
        parametrizations.orthogonal(model)
    make_linearizable(model, X)
    if not first:
        parametrizations.orthogonal(model)
    for own in slopes_of(model):
        nn.init.uniform_(own.parameter, 0.1, 0.9)
    expected = model(X)
    assert torch.equal(copy.deepcopy(model)(X), expected)
    parametrize.remove_parametrizations(model, "weight")
    torch.testing.assert_close(model(X), expected)
    assert type(model).__name__ == "Weighted"
    assert len(slopes_of(model)) == 2
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), model(X))
