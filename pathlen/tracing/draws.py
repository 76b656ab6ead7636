"""Random numbers that a program draws past torch, by Python's `random` or by numpy.

No call of a recording tells of them. That some were drawn shows by the generators; what they decide
shows by running the program again, for other numbers.
"""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.tracing.generators import own_generators, reseed, state_of
from pathlen.tracing.own_numbers import draws_by_name, own_numbers
from pathlen.tracing.recording import Recording

OTHER_DRAWS = 8
BRANCH = (
    "numbers that its Python code draws at random (random, numpy) decide what is computed: this is"
    " one draw of several; another may have another path graph"
)
NO_BRANCH = (
    f"its Python code draws numbers at random (random, numpy); for {OTHER_DRAWS} other draws it"
    " called the same operations"
)


# Of other arguments (floating-point numbers, objects of torch's own) the class is compared.
_COMPARED = (bool, int, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


@dataclass
class Draws:
    """Whether numbers were drawn, by Python or numpy."""

    seen: bool = False


@contextmanager
def watched_draws(model: Any, seed: int | None = None, *, calls: bool = True) -> Iterator[Draws]:
    """Runs a model on random numbers of its own, and watches whether it draws some past torch.

    Args:
        model: what is run in the block.
        seed: of all generators; None is 0, and for those that the model has as attributes the
            numbers that they would draw next.
        calls: see `own_numbers`.
    """
    own = own_generators(model)
    if seed is not None:
        for generator in own:
            reseed(generator, seed)
    draws, before = Draws(), _fingerprint(own)
    with own_numbers(seed or 0, calls=calls) as numbers:
        yield draws
    draws.seen = (
        numbers.past_torch
        or _fingerprint(own) != before
        or (numbers.by_others and draws_by_name(model))
    )


def compare_draws(
    recording: Recording, again: Callable[[int], Recording]
) -> tuple[Recording, set[fx.Node]]:
    """What the numbers decide that a program has drawn.

    Args:
        recording: of one draw.
        again: records the program for the numbers of a seed.

    Returns:
        The recording with a remark on that, and its constants that other draws have otherwise.
    """
    if not recording.draws:
        return recording, set()
    described, drawn = _described(recording), set[fx.Node]()
    for seed in range(1, OTHER_DRAWS + 1):
        other = again(seed)
        if _described(other) != described:
            return replace(recording, remarks=(BRANCH,)), drawn
        drawn |= _other_constants(recording, other)
    return replace(recording, notes=(NO_BRANCH,)), drawn


def _described(recording: Recording) -> list[Any]:
    """What a program calls, whatever the floating-point numbers that it was given."""
    position = {node: number for number, node in enumerate(recording.graph.nodes)}

    def describe(leaf: Any) -> Any:
        if isinstance(leaf, fx.Node):
            return position[leaf]
        return type(leaf), leaf if isinstance(leaf, _COMPARED) else None

    return [
        (node.target, pytree.tree_map(describe, (node.args, node.kwargs)), _shapes(node))
        for node in recording.graph.nodes
    ]


def _shapes(node: fx.Node) -> list[torch.Size]:
    vals = pytree.tree_leaves(node.meta.get("val"))
    return [val.shape for val in vals if isinstance(val, torch.Tensor)]


def _other_constants(recording: Recording, other: Recording) -> set[fx.Node]:
    """The constants of a program that have other values in another run."""
    found = set()
    for node in recording.graph.nodes:
        if node.op == "get_attr":
            one, two = (program.attributes[node.target] for program in (recording, other))
            if one is not two and not one.is_meta and not torch.equal(one, two):
                found.add(node)
    return found


def _fingerprint(own: list[Any]) -> Any:
    """The states of a model's generators but torch's, to be compared; arrays in them as bytes.

    What torch's draw is seen by the calls that draw.
    """
    return pickle.dumps([state_of(one) for one in own if not isinstance(one, torch.Generator)])
