"""A program as a torch model, in a spelling that is drawn."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# The modules of spellings fill the table as they are imported.
from tests.spelling import (
    factors,
    spellings_layers,
    spellings_meeting,
    spellings_moving,
    spellings_pointwise,
)
from tests.spelling.program import Node, Program
from tests.spelling.rules import DETOURS, SPELLINGS, Call, key

__all__ = ["Network", "applicable", "computes_the_same", "example", "parameters", "spelled"]
FILLED_BY = (factors, spellings_layers, spellings_meeting, spellings_moving, spellings_pointwise)

BATCH = 2
# How often a value goes through a detour.
DETOUR = 0.15

# For each node the index of its spelling, and for each the detours behind it.
Choice = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]


def _shapes(program: Program, node: Node) -> dict[str, tuple[int, ...]]:
    """The parameters of a node."""
    read = [program.nodes[arg].shape for arg in node.args]
    if node.op == "linear":
        out, features = node.shape[-1], read[0][-1]
        shapes = {"weight": (out, features), "bias": (out,)}
        return shapes if len(node.args) == 1 else {"experts": (3, features, out)}
    if node.op == "conv":
        out, features, groups = node.shape[0], read[0][0], node.attrs["groups"]
        kernel = (node.attrs["kernel"],) * (len(node.shape) - 1)
        weight = (out, features // groups, *kernel)
        if node.attrs["transposed"]:
            weight = (features, out // groups, *kernel)
        return {"weight": weight, "bias": (out,)}
    if node.op == "mixing":
        time = node.layout.index("t")
        return {"weight": (node.shape[time], read[0][time])}
    if node.op == "embedding":
        return {"weight": (node.attrs["vocabulary"], node.shape[-1])}
    if node.op == "bilinear":
        out = node.shape[-1]
        return {"weight": (out, read[0][-1], read[1][-1]), "bias": (out,)}
    return {}


def parameters(program: Program, seed: int) -> list[dict[str, Any]]:
    """Weights and constants of each node: the same for all spellings."""
    generator = torch.Generator().manual_seed(seed)
    result: list[dict[str, Any]] = []
    for node in program.nodes:
        own: dict[str, Any] = {
            name: nn.Parameter(0.6 * torch.randn(shape, generator=generator))
            for name, shape in _shapes(program, node).items()
        }
        for name in ("parameter", "factor", "offset", "knots"):
            if name in node.attrs:
                constant = node.attrs[name]
                plain = isinstance(constant, (int, float))
                own[name] = constant if plain else torch.tensor(np.array(constant)).float()
        if node.attrs.get("kind") == "batch":
            channels = node.shape[node.layout.index("c")]
            own |= {"mean": torch.randn(channels, generator=generator)}
            own |= {"var": torch.rand(channels, generator=generator) + 0.5}
        result.append(own)
    for own in result:
        own["of"] = result
    return result


def example(program: Program, seed: int = 0) -> tuple[Tensor, ...]:
    """A batch of inputs."""
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for node in program.nodes:
        shape = (BATCH, *node.shape)
        if node.op == "input":
            inputs.append(torch.randn(shape, generator=generator))
        elif node.op == "ids":
            high = node.attrs["vocabulary"]
            inputs.append(torch.randint(0, high, shape, generator=generator))
    return tuple(inputs)


class Network(nn.Module):
    """Runs a program; `choice` says in which spelling each operation is."""

    def __init__(self, program: Program, weights: list[dict[str, Any]], choice: Choice) -> None:
        super().__init__()
        self.program, self.choice, self.weights = program, choice, weights
        for place, own in enumerate(weights):
            for name, tensor in own.items():
                if isinstance(tensor, nn.Parameter):
                    self.register_parameter(f"{name}{place}", tensor)
                elif isinstance(tensor, Tensor):
                    self.register_buffer(f"{name}{place}", tensor)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = iter(inputs)
        values: list[Tensor] = []
        for place, node in enumerate(self.program.nodes):
            if node.op in ("input", "ids"):
                values.append(next(given))
                continue
            call = Call(node, self.weights[place], self.program, values)
            _, spelling = SPELLINGS[key(node)][self.choice[0][place]]
            value = spelling(call, *(values[arg] for arg in node.args))
            for detour in self.choice[1][place]:
                value = DETOURS[detour][1](value)
            values.append(value)
        return tuple(values[place] for place in self.program.outputs)

    def rules(self) -> list[list[str]]:
        """The rules that the spelling uses, for each operation."""
        found: list[list[str]] = []
        for place, node in enumerate(self.program.nodes):
            spelling = [SPELLINGS[key(node)][self.choice[0][place]][0]] if node.args else []
            found.append([*spelling, *(f"detour: {DETOURS[i][0]}" for i in self.choice[1][place])])
        return found


def computes_the_same(first: Tensor, other: Tensor) -> bool:
    """Whether two spellings gave one value, as far as numbers of this size can tell."""
    size = float(first.abs().max())
    if not size < 1e3 or not other.isfinite().all():  # 0 / 0 in some spellings, 0 in others
        return True
    return torch.allclose(first, other, rtol=1e-3, atol=1e-3 * (1 + size))


@torch.no_grad()
def applicable(program: Program, weights: list[dict[str, Any]]) -> list[list[int]]:
    """For each node the spellings that apply to it, found by running all of them."""
    given = iter(example(program))
    values: list[Tensor] = []
    found: list[list[int]] = []
    for place, node in enumerate(program.nodes):
        if not node.args:
            values.append(next(given))
            found.append([0])
            continue
        call = Call(node, weights[place], program, values)
        read = [values[arg] for arg in node.args]
        results = {}
        for index, (_, spelling) in enumerate(SPELLINGS[key(node)]):
            if (result := spelling(call, *read)) is not None:
                results[index] = result
        first = next(iter(results.values()))
        small = all(float(x.abs().max()) < 15 for x in read)  # exponentials of more overflow
        for index, result in results.items():
            name = SPELLINGS[key(node)][index][0]
            assert result.shape == (BATCH, *node.shape), (name, str(node), result.shape)
            same = not small or computes_the_same(first, result)
            assert same, f"{name} computes something else: {node}"
        values.append(first)
        found.append(list(results))
    return found


def spelled(
    program: Program, weights: list[dict[str, Any]], number: int, random: Random
) -> list[Network]:
    """The plain spelling, the first that applies of each operation, and drawn ones."""
    fitting = applicable(program, weights)
    none: tuple[tuple[int, ...], ...] = ((),) * len(fitting)
    networks = [Network(program, weights, (tuple(indices[0] for indices in fitting), none))]
    for _ in range(number - 1):
        detours = tuple(
            (random.randrange(len(DETOURS)),) if node.args and random.random() < DETOUR else ()
            for node in program.nodes
        )
        drawn = tuple(random.choice(indices) for indices in fitting)
        networks.append(Network(program, weights, (drawn, detours)))
    return networks
