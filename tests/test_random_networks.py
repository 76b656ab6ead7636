"""Random small networks against enumeration of a graph built here by the rules, unit by unit.

A random program is run twice: by torch, where `pathlen` reads it, and on sets and dicts of unit
names below, which share no code with the package. All paths and walks of the second are listed.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen import backends

MOST_PATHS = 3000


class Expected:
    """The unit-level graph: for each node its predecessors, and which nodes are active."""

    def __init__(self):
        self.before: dict[int, set[int]] = {}
        self.active: set[int] = set()
        self.meets_itself = False

    def node(self, before, active=False):
        name = len(self.before)
        self.before[name] = set(before)
        if active:
            self.active.add(name)
        return name

    def layer(self, read, features):
        """Every feature reads one hub over all distinct units; a hub of one unit is that unit."""
        read = set(read)
        hub = self.node(read) if len(read) > 1 else next(iter(read))
        return [self.node([hub]) for _ in range(features)]

    def walks(self, node):
        """All walks from a node back to an input: (chance, length)."""
        own = int(node in self.active)
        if not self.before[node]:
            yield Fraction(1), own
        for other in self.before[node]:
            for chance, length in self.walks(other):
                yield chance / len(self.before[node]), length + own

    def counts(self):
        counts: dict[int, int] = {}
        for node, before in self.before.items():  # nodes are made after their predecessors
            counts[node] = sum(counts[other] for other in before) if before else 1
        return counts


OWN = ("layer", "add", "product", "cat")
"""Kinds of operations whose results are no scalar functions of one tensor that they read."""


class Step(NamedTuple):
    """One operation: its kind, the positions of the tensors it reads, its module if it has one."""

    kind: str
    sources: tuple[int, ...]
    module: nn.Module | None = None


def live_steps(steps, outputs):
    """Positions of the tensors that an output depends on; tensor 0 is the input."""
    live, queue = set(), list(outputs)
    while queue:
        position = queue.pop()
        if position not in live:
            live.add(position)
            queue += steps[position - 1].sources if position else ()
    return live


def behind_moves(steps, outputs, source, reader):
    """Which operation a tensor is moved from, and how; None where others read it."""
    live, moves = live_steps(steps, outputs), []
    while source and source not in outputs:
        if [p for p in live if p and source in steps[p - 1].sources] != [reader]:
            return None, moves
        kind, sources, _ = steps[source - 1]
        if kind not in ("slice", "cat") or len(set(sources)) > 1:
            return source, moves
        moves.insert(0, half if kind == "slice" else twice)
        source, reader = sources[0], source
    return None, moves


def half(units):
    return units[: (len(units) + 1) // 2]


def twice(units):
    return [*units, *units]


def parts(steps, outputs, tensors, position):
    """What a sum or a product merges: tensors, by position, and the units of each.

    Where nobody else reads an inner sum (product), its parts are those of the outer one.
    """
    found = []
    for source in steps[position - 1].sources:
        inner, moves = behind_moves(steps, outputs, source, position)
        if inner is None or steps[inner - 1].kind != steps[position - 1].kind:
            found.append((source, tensors[source]))
            continue
        for tensor, units in parts(steps, outputs, tensors, inner):
            for move in moves:
                units = move(units)
            found.append((tensor, units))
    return found


def factors_behind(steps, position):
    """What a sum or a product is made of, with repetitions, and whether a product is in it."""
    if not position or steps[position - 1].kind not in ("add", "product", "double", "slice", "cat"):
        return [position], False
    found, has_product = [], steps[position - 1].kind == "product"
    for source in steps[position - 1].sources:
        factors, more = factors_behind(steps, source)
        found, has_product = found + factors, has_product or more
    return found, has_product


def shares_factors(steps, position):
    """Whether factors may be drawn out: x + x y is x (1 + y), which other tests are about."""
    factors, has_product = factors_behind(steps, position)
    return has_product and len({*factors}) < len(factors)


def merge(expected, read):
    """One new unit per distinct tuple of units.

    A channel that meets itself is left out: x + x is one scalar function of x, but whether one
    channel of a sum is a scalar function is not written anywhere.
    """
    made = {}
    for units in zip(*read, strict=True):
        expected.meets_itself |= len(set(units)) == 1
        if units not in made:
            made[units] = expected.node(units)
    return [made[units] for units in zip(*read, strict=True)]


def apply(expected, step, read):
    """The units of a step's result, one a channel, from those of what it reads."""
    if step.kind == "layer":
        groups = getattr(step.module, "groups", 1)
        size, features = len(read[0]) // groups, step.module.weight.shape[0] // groups
        parts = [read[0][group * size : (group + 1) * size] for group in range(groups)]
        return [unit for part in parts for unit in expected.layer(part, features)]
    if step.kind == "prelu":  # one unit per unit and slope
        slopes = step.module.weight.tolist()
        return [expected.node([u], slope != 1) for u, slope in zip(read[0], slopes, strict=True)]
    if step.kind == "relu":  # one unit per unit, in however many channels that is
        made = {unit: expected.node([unit], active=True) for unit in dict.fromkeys(read[0])}
        return [made[unit] for unit in read[0]]
    if step.kind in ("norm", "double"):
        return read[0]
    if step.kind == "slice":
        return half(read[0])
    if step.kind == "cat":
        return [unit for part in read for unit in part]
    return merge(expected, read)


def expected_graph(steps, outputs, channels):
    """The graph of a program, and the units of each output tensor."""
    expected = Expected()
    tensors = [[expected.node([]) for _ in range(channels)]]
    entries = [0]
    for position, step in enumerate(steps, start=1):
        entries.append(position if step.kind in OWN else entries[step.sources[0]])
        read = [tensors[source] for source in step.sources]
        if step.kind in ("add", "product"):
            met = parts(steps, outputs, tensors, position)
            names = [name for name, _ in met]
            if step.kind == "add":
                names = [*set(names)]  # x + x is 2 x, but x * x a function
            # relu(x) + (y + x): two functions of x meet in the flat sum
            expected.meets_itself |= len({entries[name] for name in names}) < len(names)
            expected.meets_itself |= step.kind == "add" and shares_factors(steps, position)
            read = [units for _, units in met]
        tensors.append(apply(expected, step, read))
    return expected, [set(tensors[position]) for position in outputs]


@st.composite
def programs(draw):
    """(steps, positions of the outputs, input channels, whether tensors are images)."""
    images = draw(st.booleans())
    channels = [draw(st.integers(1, 4))]
    # Two functions of one tensor would be one scalar function where they meet (x + relu(x)), which
    # other tests are about: `entries` holds the tensor that each is a scalar function of.
    entries = [0]
    steps: list[Step] = []
    for position in range(1, draw(st.integers(2, 8)) + 1):
        kinds = ["layer", "layer", "relu", "prelu", "norm", "double", "slice", "cat"]
        kinds += ["add", "add", "add", "product"]
        kind = draw(st.sampled_from(kinds)) if position > 1 else "layer"  # it reads the whole input
        source = draw(st.integers(0, position - 1)) if position > 1 else 0
        sources, module = (source,), None
        if kind in ("add", "product"):
            others = [
                p
                for p in range(position)
                if channels[p] == channels[source] and entries[p] != entries[source]
            ]
            if not others:
                kind = "layer"
            else:
                second = draw(st.sampled_from(others))
                third = [p for p in others if entries[p] != entries[second]]
                sources = (source, second)
                if kind == "add" and third and draw(st.booleans()):
                    sources = (*sources, draw(st.sampled_from(third)))
        if kind == "double" and source and steps[source - 1].kind in ("add", "product"):
            kind = "relu"
        if kind == "cat":
            sources = (source, draw(st.integers(0, position - 1)))
        size = sum(channels[p] for p in sources) if kind == "cat" else channels[source]
        if kind == "slice":
            size = (size + 1) // 2
        if kind == "layer":
            size = draw(st.sampled_from(sorted({1, 2, channels[0], 4})))
            module = draw(layers(channels[source], size, images))
        elif kind == "prelu":
            module = nn.PReLU(size)
            slopes = draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=size, max_size=size))
            module.weight.data = torch.tensor(slopes)
        elif kind == "norm":
            module = nn.BatchNorm2d(size) if images else nn.BatchNorm1d(size)
        steps.append(Step(kind, sources, module))
        channels.append(size)
        entries.append(position if kind in OWN else entries[source])
    last = len(steps)
    outputs = sorted({last, *draw(st.sets(st.integers(1, last), max_size=2))})
    return steps, outputs, channels[0], images


def layers(inputs, features, images):
    """A dense layer, or a convolution, perhaps grouped."""
    if not images:
        return st.builds(nn.Linear, st.just(inputs), st.just(features))
    divisors = [g for g in range(1, inputs + 1) if inputs % g == 0 == features % g]
    return st.sampled_from(divisors).map(
        lambda groups: nn.Conv2d(inputs, features, 3, padding=1, groups=groups)
    )


class Network(nn.Module):
    """The program as a torch model."""

    def __init__(self, steps, outputs):
        super().__init__()
        self.steps, self.outputs = steps, outputs
        self.parts = nn.ModuleList(step.module or nn.Identity() for step in steps)

    def forward(self, x):
        tensors = [x]
        for step, module in zip(self.steps, self.parts, strict=True):
            read = [tensors[source] for source in step.sources]
            tensors.append(self.run(step.kind, module, read))
        return tuple(tensors[position] for position in self.outputs)

    def run(self, kind, module, read):
        if kind == "add":
            return sum(read[1:], read[0])
        if kind == "product":
            return read[0] * read[1]
        if kind == "cat":
            return torch.cat(read, dim=1)
        if kind == "slice":
            return read[0][:, : (read[0].shape[1] + 1) // 2]
        if kind == "double":
            return read[0] + read[0]
        if kind == "relu":
            return torch.relu(read[0])
        return module(read[0])


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(programs())
def test_every_backend_agrees_with_enumeration(program):
    steps, outputs, channels, images = program
    expected, ends = expected_graph(steps, outputs, channels)
    counts = expected.counts()
    assume(not expected.meets_itself)
    assume(sum(counts[unit] for units in ends for unit in units) <= MOST_PATHS)
    found = [
        (chance / len(units) / len(ends), length)
        for units in ends
        for unit in units
        for chance, length in expected.walks(unit)
    ]
    assert sum(chance for chance, _ in found) == 1
    lengths = [length for _, length in found]
    average = Fraction(sum(lengths), len(lengths))
    normalized = sum(chance * length for chance, length in found)

    model = Network(steps, outputs)
    x = torch.zeros(2, channels, *([3, 3] if images else []))
    graph = pathlen.trace(model, x)
    assert graph.info.status == "exact"
    for backend in backends.registry.built_in_that_give("solution"):
        exact = backends.get(backend).capabilities.exact
        report = pathlen.measure(graph, backend=backend, exact=exact)
        assert report.path_count == len(found)
        assert (report.longest_path, report.shortest_path) == (max(lengths), min(lengths))
        if exact:
            assert report.average_path_length == average
            assert report.normalized_average_path_length == normalized
        else:
            close = {"rel": 1e-12, "abs": 1e-15}
            assert report.average_path_length == pytest.approx(float(average), **close)
            assert report.normalized_average_path_length == pytest.approx(
                float(normalized), **close
            )
    assert report.log10_path_count == pytest.approx(math.log10(len(found)), rel=1e-12, abs=1e-12)


def test_the_oracle_gives_the_worked_values():
    # x -> x + W2 relu(W1 x), width 2, hidden width 3, twice: 2 (2 * 3 + 1)^2 paths, averages
    # 2 * 6 / 7 and 2 / 2
    steps = []
    for first in (0, 4):
        steps += [
            Step("layer", (first,), nn.Linear(2, 3)),
            Step("relu", (first + 1,)),
            Step("layer", (first + 2,), nn.Linear(3, 2)),
            Step("add", (first, first + 3)),
        ]
    expected, (ends,) = expected_graph(steps, [8], 2)
    # two residual sums: the stream read by the layer too, so that they do not become one merge
    found = [walk for unit in ends for walk in expected.walks(unit)]
    assert len(found) == 2 * 7**2
    assert sum(length for _, length in found) == Fraction(12, 7) * len(found)
    assert sum(chance * length for chance, length in found) / len(ends) == 1


def test_functions_of_one_tensor_meet_in_a_flat_sum():
    """x + relu(v) + (x + v) is 2 x + f(v), f(v) = v + relu(v): one unit for each channel of v."""
    steps = [
        Step("layer", (0,), nn.Conv2d(2, 2, 3, padding=1)),
        Step("relu", (1,)),
        Step("add", (0, 1)),
        Step("add", (0, 2, 3)),
    ]
    report = pathlen.measure(Network(steps, [4]), torch.zeros(2, 2, 3, 3))
    # into each of 2 channels: 1 path past the layer, and 1 from each of 2 inputs through f
    assert report.path_count == 2 * (1 + 2)
    assert report.average_path_length == pytest.approx(2 / 3)
    assert report.normalized_average_path_length == pytest.approx(1 / 2)
    assert report.num_active == 2
