"""A part of a complex tensor that was built from two real ones is that which it was built from."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model, answer

X = torch.randn(2, 5)
ZEROS = torch.zeros(2, 4)


def model(function):
    """A function of two rectified tensors of 4 features between linear layers."""
    torch.manual_seed(0)
    return Model(
        lambda m, x: m.c(function(F.relu(m.a(x)), F.relu(m.b(x)))),
        a=nn.Linear(5, 4),
        b=nn.Linear(5, 4),
        c=nn.Linear(4, 3),
    )


FIRST = {
    "complex with zeros": lambda a, b: torch.complex(a, ZEROS).real,
    "cast": lambda a, b: a.to(torch.complex64).real,
    "imaginary with zeros": lambda a, b: torch.complex(ZEROS, a).imag,
    "complex": lambda a, b: torch.complex(a, b).real,
    "imaginary": lambda a, b: torch.complex(b, a).imag,
    "pairs": lambda a, b: torch.view_as_complex(torch.stack([a, b], -1)).real,
    "as pairs": lambda a, b: torch.view_as_real(torch.complex(a, b))[..., 0],
    "unbound": lambda a, b: torch.view_as_real(torch.complex(a, b)).unbind(-1)[0],
    "conjugate": lambda a, b: torch.complex(b, a).conj().imag.neg(),
    "moved": lambda a, b: torch.complex(a, b).T.reshape(4, 2).T.real,
    "times i": lambda a, b: (1j * torch.complex(b, a)).real.neg(),
    "a sum": lambda a, b: (a + 1j * b).real,
    "there and back": lambda a, b: (
        torch.view_as_complex(torch.view_as_real(torch.complex(a, b))).real
    ),
    "halves": lambda a, b: (
        torch.complex(torch.cat([a, b], 1), torch.cat([b, b], 1)).chunk(2, 1)[0].real
    ),
}


@pytest.mark.parametrize("name", FIRST)
def test_one_part(name):
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    torch.testing.assert_close(FIRST[name](a, b), a)
    assert answer(model(FIRST[name]), X) == (5 * 4 * 3, 1, 1)


@pytest.mark.parametrize("name", ["complex", "as pairs", "moved", "conjugate"])
def test_verify_knows_parts(name):
    verdict = pathlen.verify(model(FIRST[name]), X, spellings=1)
    assert verdict.ok, str(verdict)


def test_a_part_of_zeros_has_no_path():
    nothing = model(lambda a, b: torch.complex(a, ZEROS).imag + b)
    assert answer(nothing, X) == (5 * 4 * 3, 1, 1)


def test_parts_that_meet_are_a_sum():
    def both(a, b):
        z = torch.complex(a, b)
        return z.real + z.imag

    assert answer(model(both), X) == answer(model(lambda a, b: a + b), X)


def test_a_part_and_its_activation_are_one_function():
    def gated(a, b):
        part = torch.complex(a, b).real
        return part * torch.sigmoid(part)

    assert answer(model(gated), X) == answer(model(lambda a, b: a * torch.sigmoid(a)), X)
    with_itself = model(lambda a, b: torch.complex(a, b).real * torch.sigmoid(a))
    assert answer(with_itself, X) == answer(model(gated), X)


def test_what_mixes_parts_has_both():
    def rotated(a, b):
        return (torch.complex(a, b) * (0.6 + 0.8j)).real

    assert answer(model(rotated), X) == (2 * 5 * 4 * 3, 1, 1)


PHASES = {
    "real": lambda p: torch.cat([p.cos(), p.sin()], 1),
    "complex": lambda p: both_parts(torch.complex(p.cos(), p.sin())),
    "exponential": lambda p: both_parts(torch.exp(1j * p)),
    "exponential of parts": lambda p: both_parts(torch.complex(torch.zeros(2, 4), p).exp()),
    "polar": lambda p: both_parts(torch.polar(torch.ones_like(p), p)),
    "pairs": lambda p: torch.view_as_real(torch.exp(1j * p)).mT.flatten(1),
}


def both_parts(z):
    return torch.cat([z.real, z.imag], 1)


@pytest.mark.parametrize("name", PHASES)
def test_both_parts_of_a_phase_are_two_functions_of_it(name):
    phases = torch.randn(2, 4)
    torch.testing.assert_close(PHASES[name](phases).sum(), PHASES["real"](phases).sum())
    wave = Model(lambda m, x: m.c(PHASES[name](m.a(x))), a=nn.Linear(5, 4), c=nn.Linear(8, 3))
    assert answer(wave, X) == (5 * 4 * 2 * 3, 1, 1)


def test_verify_knows_phases():
    wave = Model(
        lambda m, x: m.c(PHASES["exponential"](m.a(x))), a=nn.Linear(5, 4), c=nn.Linear(8, 3)
    )
    verdict = pathlen.verify(wave, X, spellings=1)
    assert verdict.ok, str(verdict)
