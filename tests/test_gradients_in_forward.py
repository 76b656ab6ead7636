"""Forwards that differentiate as in plain torch, where gradients are on without being asked for."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import pathlen
from pathlen.errors import ModelError
from tests.constructs import Model, answer
from tests.test_tracing import state_of

X = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)


def energy(forward, *, frozen=False):
    """W1' diag(f'(W1 x)) w2: 4 units, a scalar function of 3 inputs each, into 3 outputs."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    return Model(forward, net=net.requires_grad_(not frozen))


def force(m, x, **options):
    return torch.autograd.grad(m.net(x).sum(), x, **options)[0]


def by_backward(m, x):
    x = x.detach().requires_grad_()
    m.net(x).sum().backward()
    return x.grad


def by_hook(m, x):
    x, seen = x.clone().requires_grad_(), []
    x.register_hook(seen.append)
    m.net(x).sum().backward()
    return seen[0]


def by_retained(m, x):
    y = x.requires_grad_() * 1.0
    y.retain_grad()
    m.net(y).sum().backward()
    return y.grad


def by_attribute(m, x):
    x.requires_grad = True
    return force(m, x)


FORWARDS = {
    "requires_grad_": lambda m, x: force(m, x.requires_grad_()),
    "create_graph": lambda m, x: force(m, x.requires_grad_(), create_graph=True),
    "detach": lambda m, x: force(m, x.detach().requires_grad_(), create_graph=True),
    "attribute": by_attribute,
    "backward": by_backward,
    "hook": by_hook,
    "retain_grad": by_retained,
    "outside of inference mode": lambda m, x: torch.inference_mode(False)(force)(
        m, x.clone().requires_grad_()
    ),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", FORWARDS)
def test_an_energy_gives_a_force(name, frozen):
    model = energy(FORWARDS[name], frozen=frozen)
    model.net[0].weight.grad = torch.ones(4, 3).double()
    state = state_of(model)
    assert answer(model, X) == (3 * 4 * 3, 1, 1)
    assert not X.requires_grad
    assert state_of(model) == state


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_whatever_the_caller_turned_off(around):
    model = energy(FORWARDS["requires_grad_"])
    with around():
        assert answer(model, X) == (36, 1, 1)


def test_an_input_that_requires_grad():
    model, x = energy(force), X.clone().requires_grad_()
    assert answer(model, x) == (36, 1, 1)
    assert pathlen.verify(model, x).ok
    with pytest.raises(ModelError, match="inputs that require grad when they are passed") as caught:
        pathlen.measure(model, X)
    assert "args and kwargs" not in str(caught.value)
    assert "for these arguments" not in str(caught.value)


def test_a_force_on_data():
    # 1 - tanh(h)^2 is a bump around 0: no unit acts linearly
    x = torch.randn(50, 3, dtype=torch.float64) * 3
    found = pathlen.activity.from_data(energy(FORWARDS["requires_grad_"]), [x, x])
    assert found.nonlinearity.shape == (4,)
    assert np.all(found.nonlinearity > 0)


def residual(m, x):
    """u_xx + u u_x of a network u, as physics-informed networks are trained on."""
    x = x.clone().requires_grad_()
    u = m.net(x)
    first = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), x, create_graph=True)[0]
    return second + u * first


def hamiltonian(m, x):
    x = x.requires_grad_()
    slope = force(m, x, create_graph=True)
    return torch.cat([slope[:, 1:], -slope[:, :1]], 1)


def inner_loop(m, x):
    """A step of gradient descent on the first weights, then the network with these."""
    weight = m.net[0].weight
    loss = torch.tanh(x @ weight.T).square().sum()
    weight = weight - 0.1 * torch.autograd.grad(loss, weight, create_graph=True)[0]
    return torch.tanh(x @ weight.T)


def read_and_differentiate(m, x):
    x = x.requires_grad_()
    return x if x.sum().item() > 1e6 else force(m, x)


def differentiated_in_part(m, x):
    """The first layer is outside of `enable_grad`, where plain torch differentiates it too."""
    x = x.requires_grad_()
    h = torch.tanh(m.net[0](x))
    with torch.enable_grad():
        return torch.autograd.grad(m.net[2](h).sum() + x.exp().sum(), x)[0]


@pytest.mark.parametrize(
    "forward", [residual, hamiltonian, inner_loop, read_and_differentiate, differentiated_in_part]
)
def test_gradients_need_not_be_turned_on(forward):
    model = energy(forward)
    spelled = Model(lambda m, x: torch.enable_grad()(forward)(m, x), net=model.net)
    status = "example" if forward is read_and_differentiate else "exact"
    assert answer(model, X, status=status) == answer(spelled, X, status=status)
    assert pathlen.verify(model, X).ok


def test_forces_without_values():
    model = energy(FORWARDS["requires_grad_"]).to("meta")
    assert answer(model, X.to("meta")) == (36, 1, 1)


@pytest.mark.parametrize("made", [torch.empty_like, lambda t: torch.zeros(t.numel()).view(t.shape)])
def test_a_copy_that_nothing_reads(made):
    """What is left in memory that nothing reads changes nothing; `backward` leaves gradients so."""

    def forward(m, x):
        h = x + m.a(x)
        made(h)[...] = h
        return h + torch.relu(m.b(x))

    # a flat sum of three: 1 + 3 + 3 paths into each output, a third of the walks over the ReLU
    model = Model(forward, a=nn.Linear(3, 3), b=nn.Linear(3, 3))
    assert answer(model, X.float()) == (3 * (1 + 3 + 3), Fraction(3, 7), Fraction(1, 3))
