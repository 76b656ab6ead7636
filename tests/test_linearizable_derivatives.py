"""Derivatives of models with slopes, of any order and kind, against the formula written by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from torch.nn import functional

from pathlen.training import make_linearizable, slopes_of

# Torch's own: it compiles decompositions for forward derivatives by TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

WIDTH = 4


class Net(nn.Module):
    """Every way to call an activation: modules, in place, shared; functions, a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(9))
        self.relu, self.gelu = nn.ReLU(), nn.GELU()
        self.written, self.elu = nn.ReLU(inplace=True), nn.ELU(inplace=True)
        self.prelu = nn.PReLU(WIDTH, init=-0.4)

    def forward(self, x: Tensor) -> Tensor:
        one, *rest, last = self.layers
        h = self.prelu(one(self.gelu(self.relu(x))))
        h = self.elu(rest[1](self.written(rest[0](h))))
        h = functional.softplus(rest[2](h))
        h = functional.relu(rest[3](h))
        h = rest[4](h)
        h = h * torch.sigmoid(1.702 * h)
        h = rest[5](h).tanh_()
        h = self.relu(rest[6](h))
        return last(h)


class Formula(Net):
    """The same net, with its blends written out."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.ParameterList(torch.zeros(WIDTH) for _ in range(10))

    def forward(self, x: Tensor) -> Tensor:
        prelu: list[Callable[[Tensor], Tensor]] = [
            torch.relu,
            functional.gelu,
            lambda h: functional.prelu(h, self.prelu.weight),
            torch.relu,
            functional.elu,
            functional.softplus,
            torch.relu,
            lambda h: h * torch.sigmoid(1.702 * h),
            torch.tanh,
            torch.relu,
        ]
        layers = [nn.Identity(), nn.Identity(), *self.layers[:8]]
        for layer, slope, phi in zip(layers, self.slopes, prelu, strict=True):
            h = layer(x)
            x = slope * h + (1 - slope) * phi(h)
        y: Tensor = self.layers[8](x)
        return y


def _pair(seed: int = 0) -> tuple[nn.Module, Formula]:
    torch.manual_seed(seed)
    plain, formula = Net().double(), Formula().double()
    model = make_linearizable(copy.deepcopy(plain), torch.zeros(1, WIDTH, dtype=torch.float64))
    formula.load_state_dict(plain.state_dict(), strict=False)
    by_site = {own.name: own.parameter for own in slopes_of(model)}
    slots = model._linearization.slots
    assert len(by_site) == len(slots) == len(formula.slopes)
    with torch.no_grad():
        for slot, other in zip(slots, formula.slopes, strict=True):
            nn.init.uniform_(other, 0.1, 0.9)
            by_site[slot.layer].copy_(other)
        for position in (3, 5):  # where a slope is 0 other tensors are kept
            formula.slopes[position][0] = 0
            by_site[slots[position].layer][0] = 0
    return model, formula


@pytest.fixture
def pair() -> tuple[nn.Module, Formula]:
    return _pair()


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(3, WIDTH, dtype=torch.float64)
    x[1, :2] = 0  # exactly where a ReLU bends
    return x


def shared_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that both nets have."""
    own = dict(model.named_parameters())
    return {name: own[name] for name in dict(Net().named_parameters())}


def loss_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    def loss(x: Tensor) -> Tensor:
        found: Tensor = model(x).pow(3).sum()
        return found

    return loss


def of_parameters(model: nn.Module, x: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    def loss(parameters: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(model, parameters, (x,)).pow(2).sum()
        return found

    return loss


def penalty(model: nn.Module, x: Tensor) -> Any:
    """Gradients of a gradient penalty."""
    given = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss_of(model)(given), given, create_graph=True)
    return torch.autograd.grad(first.square().sum(), tuple(shared_parameters(model).values()))


def third(model: nn.Module, x: Tensor) -> Any:
    """Third derivatives, one direction each."""
    given = x.clone().requires_grad_()
    total = loss_of(model)(given)
    for _ in range(3):
        (found,) = torch.autograd.grad(total, given, create_graph=True)
        total = found.square().sum()
    return total


def dual(model: nn.Module, x: Tensor) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(model(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


def of_each_sample(model: nn.Module, x: Tensor) -> Any:
    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return of_parameters(model, one[None])(parameters)

    parameters = {k: v.detach() for k, v in shared_parameters(model).items()}
    return vmap(grad(loss), in_dims=(None, 0))(parameters, x)


WAYS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "gradient penalty": penalty,
    "third": third,
    "dual numbers": dual,
    "gradients of each sample": of_each_sample,
    "hessian": lambda m, x: torch.autograd.functional.hessian(loss_of(m), x),
    "vectorized hessian": lambda m, x: torch.autograd.functional.hessian(
        loss_of(m), x, vectorize=True
    ),
    "forward jacobian": lambda m, x: torch.autograd.functional.jacobian(
        m, x, strategy="forward-mode", vectorize=True
    ),
    "vectorized jacobian": lambda m, x: torch.autograd.functional.jacobian(m, x, vectorize=True),
    "hvp": lambda m, x: torch.autograd.functional.hvp(loss_of(m), x, torch.ones_like(x))[1],
    "func.hessian": lambda m, x: hessian(loss_of(m))(x),
    "func.hessian of parameters": lambda m, x: hessian(of_parameters(m, x))(
        {"layers.0.bias": m.get_parameter("layers.0.bias").detach()}
    ),
    "jacrev of jacrev": lambda m, x: jacrev(jacrev(loss_of(m)))(x),
    "jacfwd of jacfwd": lambda m, x: jacfwd(jacfwd(loss_of(m)))(x),
    "jacfwd": lambda m, x: jacfwd(m)(x),
    "jacrev": lambda m, x: jacrev(m)(x),
    "jvp": lambda m, x: jvp(m, (x,), (torch.ones_like(x),)),
    "vjp": lambda m, x: vjp(m, x)[1](torch.ones_like(x)),
    "vmap": lambda m, x: vmap(m)(x[:, None]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("grads", [True, False])
def test_derivatives_are_those_of_the_formula(pair: Any, x: Tensor, way: str, grads: bool) -> None:
    if not grads and way in ("gradient penalty", "third"):
        pytest.skip("needs gradients")
    model, formula = pair
    with torch.set_grad_enabled(grads):
        found, expected = WAYS[way](model, x), WAYS[way](formula, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_derivatives_by_slopes(pair: Any, x: Tensor) -> None:
    model, formula = pair
    given = x.clone().requires_grad_()
    by_site = {own.name: own.parameter for own in slopes_of(model)}
    found = [by_site[slot.layer] for slot in model._linearization.slots]
    second = []
    for net, slopes in ((model, found), (formula, list(formula.slopes))):
        first = torch.autograd.grad(loss_of(net)(given), [given, *slopes], create_graph=True)
        total = sum((one.square().sum() for one in first), x.new_zeros(()))
        second.append(torch.autograd.grad(total, [given, *slopes]))
    for one, other in zip(*second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_derivatives_are_those_of_small_differences() -> None:
    model, _ = _pair()
    own = dict(model.named_parameters())
    torch.manual_seed(3)
    given = torch.randn(2, WIDTH, dtype=torch.float64, requires_grad=True)

    def called(x: Tensor, *parameters: Tensor) -> Tensor:
        found: Tensor = functional_call(model, dict(zip(own, parameters, strict=True)), (x,))
        return found

    inputs = (given, *own.values())
    assert torch.autograd.gradcheck(called, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(called, inputs, fast_mode=True)


def test_an_ensemble_of_models_in_one_call(x: Tensor) -> None:
    models = [_pair(seed)[0] for seed in range(3)]
    parameters, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")

    def called(own: Any, rest: Any) -> Tensor:
        found: Tensor = functional_call(base, (own, rest), (x,))
        return found

    found = vmap(called)(parameters, buffers)
    torch.testing.assert_close(found, torch.stack([model(x) for model in models]))


def test_many_values_of_one_slope_in_one_call(pair: Any, x: Tensor) -> None:
    model, _ = pair
    name = slopes_of(model)[-1].parameter_name
    values = torch.rand(5, WIDTH, dtype=torch.float64)
    found = vmap(lambda slope: functional_call(model, {name: slope}, (x,)))(values)
    for value, one in zip(values, found, strict=True):
        torch.testing.assert_close(one, functional_call(model, {name: value}, (x,)))


@pytest.mark.parametrize("second", [False, True])
def test_autocast_is_that_of_the_forward(second: bool) -> None:
    """A PReLU is evaluated again in backward, on what was computed in half precision."""
    model, formula = (net.float() for net in _pair())
    x = torch.randn(64, WIDTH)
    gradients = []
    for net in (model, formula):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = net(given).float().square().sum()
        (first,) = torch.autograd.grad(total, given, create_graph=second)
        if second:
            (first,) = torch.autograd.grad(first.square().sum(), given)
        gradients.append(first)
    found, expected = gradients
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()
