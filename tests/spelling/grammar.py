"""How networks are drawn from the constructs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.spelling import constructs_moving, factors
from tests.spelling.constructs import CONSTRUCTS, Choose, Draw
from tests.spelling.program import Program

FILLED_BY = (constructs_moving, factors)  # the table of constructs, with the module that has it

# Larger tensors would be slow, element by element.
MOST_ELEMENTS = 96

Stem = Callable[[Draw], int]


def draw(choose: Choose) -> Program:
    """A network: a first layer, some constructs, perhaps a last layer and another output."""
    d = Draw(choose)
    name = choose((*PLAIN, *STEMS))
    x = STEMS[name](d)
    d.used.append(name)
    kept = [x]
    for _ in range(choose((1, 2, 2, 3, 3, 4))):
        fitting = [n for n, (layouts, _) in CONSTRUCTS.items() if d.layout(x) in layouts.split()]
        name = choose(fitting)
        result = CONSTRUCTS[name][1](d, x)
        if result is not None and np.prod(d.shape(result)) <= MOST_ELEMENTS:
            x = result
            d.used.append(name)
            kept.append(x)
    if choose((True, True, False)):
        x = d.layer(x)
        kept.append(x)
    outputs = [x]
    if choose((True, False, False)) and (another := choose(kept)) != x:
        outputs.append(another)
    return d.program(*outputs, constructs=d.used)


def draw_one(choose: Choose, name: str) -> Program:
    """A network of one construct between two layers, or of one first part and a layer."""
    while True:
        d = Draw(choose)
        if name in STEMS:
            return d.program(d.layer(STEMS[name](d)), constructs=(name,))
        x = STEMS[choose(PLAIN)](d)
        if d.layout(x) in CONSTRUCTS[name][0].split():
            result = CONSTRUCTS[name][1](d, x)
            if result is not None and np.prod(d.shape(result)) <= MOST_ELEMENTS:
                return d.program(d.layer(result), constructs=(name,))


def _tokens(before: Callable[[Draw, int], int] | None = None) -> Stem:
    def stem(d: Draw) -> int:
        x = d.input("tc", 4, 3)
        return d.layer(before(d, x) if before else x)

    return stem


def _image(before: Callable[[Draw, int], int] | None = None) -> Stem:
    def stem(d: Draw) -> int:
        side = 4 if before else d.choose((4, 2))
        x = d.input("chw", 2, side, side)
        return d.layer(before(d, x) if before else x)

    return stem


def _two_inputs(d: Draw) -> int:
    return d.sum(d.linear(d.input("tc", 3, 2), 3), d.linear(d.input("tc", 3, 3), 3))


# What reads the input first, and through what.
STEMS: dict[str, Stem] = {
    "vectors": lambda d: d.linear(d.input("c", 3), d.size()),
    "tokens": _tokens(),
    "signals": lambda d: d.conv(d.input("ct", 2, 4), d.size()),
    "images": _image(),
    "integers": lambda d: d.embedding(d.ids(3, 5), d.size()),
    "images flattened": lambda d: d.linear(d.flatten(d.input("chw", 1, 2, 2)), 3),
    "signals with channels last": lambda d: d.conv(d.swap(d.input("tc", 4, 3)), 3),
    "two inputs": _two_inputs,
    "tokens flipped first": _tokens(lambda d, x: d.flip(x, 0)),
    "tokens by index first": _tokens(lambda d, x: d.take(x, 0, (2, 0, 1))),
    "mean of tokens first": _tokens(lambda d, x: d.reduce(x, "mean", [0], keep=False)),
    "maximum of tokens first": _tokens(lambda d, x: d.reduce(x, "amax", [0], keep=False)),
    "one token first": _tokens(lambda d, x: d.step(x, 1)),
    "differences of tokens first": _tokens(
        lambda d, x: d.sum(d.slice(x, 0, 1, 4), d.slice(x, 0, 0, 3), factors=(1.0, -1.0))
    ),
    "tokens normalized first": _tokens(lambda d, x: d.like("norm", x, kind="rms", axes=(1,))),
    "tokens pooled first": _tokens(lambda d, x: d.pool(x, "avg", [0], 2, 1)),
    "tokens padded first": _tokens(lambda d, x: d.pad(x, 0, 1, 0)),
    "running sum of tokens first": _tokens(lambda d, x: d.scan(x, "cumsum", 0)),
    "images flipped first": _image(lambda d, x: d.flip(x, 2)),
    "images pooled first": _image(lambda d, x: d.pool(x, "max", [1, 2], 2, 2)),
    "images pooled to vectors first": lambda d: d.linear(
        d.reduce(d.input("chw", 3, 2, 2), "mean", [1, 2], keep=False), 3
    ),
}
PLAIN = tuple(STEMS)[:8]
