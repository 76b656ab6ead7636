"""Linearizable versions of every tiny family: the same outputs and gradients, then depth 0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import pathlen
from pathlen.errors import LinearizationError
from pathlen.training import make_linearizable, slopes_of
from tests.verify_families import FAMILIES

# Computed inside one operator of torch: all gates of its recurrent layers, that of F.glu.
ALL_LEFT = {"lstm", "gru", "cells"}
SOME_LEFT = {"gated"}
# Writes over what its own backward needs, with or without slopes.
WITHOUT_GRADIENTS = {"rewriting"}


def outputs(model: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
    torch.manual_seed(1)
    given = pytree.tree_map_only(Tensor, torch.clone, arguments)
    found = [leaf for leaf in pytree.tree_leaves(model(*given)) if isinstance(leaf, Tensor)]
    return [tensor for tensor in found if tensor.is_floating_point()]


def gradients(model: nn.Module, arguments: tuple[Any, ...]) -> dict[str, Tensor]:
    model.zero_grad()
    total = sum((tensor.square().sum() for tensor in outputs(model, arguments)), torch.zeros(()))
    total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    torch.manual_seed(0)
    original, arguments = FAMILIES[name]()
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    original.eval()
    before = pathlen.measure(original, arguments)
    if name in ALL_LEFT or not before.num_active:
        said = "inside an operator" if name in ALL_LEFT else "nothing to linearize"
        with pytest.raises(LinearizationError, match=said):
            make_linearizable(copy.deepcopy(original), arguments, unplaced="keep")
        return
    model = make_linearizable(copy.deepcopy(original), arguments, unplaced="keep")
    for one, other in zip(outputs(model, arguments), outputs(original, arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    if name not in WITHOUT_GRADIENTS:
        expected = gradients(original, arguments)
        found = gradients(model, arguments)
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5)
    after = pathlen.measure(model, arguments)
    assert after.num_active == before.num_active
    assert after.normalized_average_path_length == pytest.approx(
        before.normalized_average_path_length, rel=1e-12
    )
    with torch.no_grad():
        for own in slopes_of(model):
            own.parameter.fill_(1)
    linear = pathlen.measure(model, arguments)
    assert (linear.num_active > 0) == bool(model._linearization.left) == (name in SOME_LEFT)
