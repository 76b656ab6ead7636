"""How networks are drawn from the constructs."""

from __future__ import annotations

import numpy as np

from tests.spelling import constructs_moving
from tests.spelling.constructs import CONSTRUCTS, Choose, Draw
from tests.spelling.program import Program

FILLED_BY = (constructs_moving,)  # the table of constructs, with the module that has it

# Larger tensors would be slow, element by element.
MOST_ELEMENTS = 96


def draw(choose: Choose) -> Program:
    """A network: a first layer, some constructs, perhaps a last layer and another output."""
    d = Draw(choose)
    x = stem(d)
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
    """A network of one construct between two layers."""
    while True:
        d = Draw(choose)
        x = stem(d)
        if d.layout(x) in CONSTRUCTS[name][0].split():
            result = CONSTRUCTS[name][1](d, x)
            if result is not None and np.prod(d.shape(result)) <= MOST_ELEMENTS:
                d.used.append(name)
                return d.program(d.layer(result), constructs=d.used)


def stem(d: Draw) -> int:
    """An input and what first reads it, now and then behind something that moves or pools."""
    kind = d.choose(("c", "tc", "tc", "ct", "chw", "chw", "ids", "flat image", "last axis"))
    d.used.append(f"input {kind}")
    if kind == "ids":
        return d.embedding(d.ids(3, 5), d.size())
    if kind == "flat image":
        return d.linear(d.flatten(d.input("chw", 1, 2, 2)), 3)
    if kind == "last axis":  # an image with its channels last: tokens
        return d.conv(d.swap(d.input("tc", 4, 3)), 3)
    side = d.choose((4, 4, 2))
    shape = {"c": (3,), "tc": (3, 3), "ct": (2, side), "chw": (2, side, side)}[kind]
    x = d.input(kind, *shape)
    if kind == "tc":
        how = d.choose(("plain", "plain", "flip", "index", "mean", "frames", "norm", "pool"))
        d.used.append(f"before the first layer: {how}")
        if how == "flip":
            x = d.flip(x, 0)
        elif how == "index":
            x = d.take(x, 0, (2, 0, 1))
        elif how == "mean":
            x = d.reduce(x, "mean", [0], keep=False)
        elif how == "frames":
            x = d.sum(d.slice(x, 0, 1, 3), d.slice(x, 0, 0, 2), factors=(1.0, -1.0))
        elif how == "norm":
            x = d.like("norm", x, kind="rms", axes=(1,))
        elif how == "pool":
            x = d.pool(x, "avg", [0], 2, 1)
    return d.layer(x, d.choose((2, 3, 4)))
