"""Which axes of an input are features: those that the first layer to read it tells apart."""

from __future__ import annotations

import numpy as np

from tests.spelling.program import LAYERS, Node, Program, channel_axis

# Elementwise, along whatever they do: an element stays what it is made of.
_ELEMENTWISE = ("act", "affine", "norm", "softmax", "sum", "product", "quotient", "maximum")
_ELEMENTWISE += ("minimum", "masked", "choose")

Sources = frozenset[tuple[int, ...]]


def input_features(program: Program, place: int) -> tuple[int, ...]:
    """Axes of the input at a place (without the batch) along which its units differ.

    An input that no layer reads has its features along its first axis.
    """
    shape = program.nodes[place].shape
    first = np.empty(shape, dtype=object)
    for at in np.ndindex(shape):
        first[at] = frozenset([at])
    followed: dict[int, np.ndarray] = {place: first}
    for position, node in enumerate(program.nodes):
        read = [followed[arg] for arg in node.args if arg in followed]
        if not read:
            continue
        if node.op in LAYERS:
            return _told_apart(read[0], node, len(shape))
        if all(arg in followed for arg in node.args) and (moved := _follow(node, read)) is not None:
            followed[position] = moved
    return (0,)


def _follow(node: Node, read: list[np.ndarray]) -> np.ndarray | None:
    """The input elements that each element of a result is made of."""
    if node.op in _ELEMENTWISE:
        result = np.empty(node.shape, dtype=object)
        for at, *elements in zip(
            np.ndindex(node.shape),
            *(np.broadcast_to(tensor, node.shape).ravel() for tensor in read),
            strict=True,
        ):
            result[at] = frozenset().union(*elements)
        return result
    if node.op == "basis":
        return np.repeat(read[0], len(node.attrs["knots"]), -1).reshape(node.shape)
    flat = np.append(np.concatenate([tensor.ravel() for tensor in read]), None)
    flat[-1] = frozenset()
    if node.op == "move":
        return flat[node.attrs["index"]]
    if node.op == "window":
        result = np.empty(node.shape, dtype=object)
        for at in np.ndindex(node.shape):
            result[at] = frozenset().union(*(flat[i] for i in node.attrs["reads"][at]))
        return result
    return None


def _told_apart(x: np.ndarray, layer: Node, axes: int) -> tuple[int, ...]:
    """Input axes whose coordinates differ along the channels that the layer reads."""
    channel = channel_axis(layer.layout) if layer.op != "conv" else 0
    x = np.moveaxis(x, channel, -1)
    found = set()
    for at in np.ndindex(x.shape[:-1]):
        for axis in range(axes):
            seen = {frozenset(source[axis] for source in element) for element in x[at] if element}
            if len(seen) > 1:
                found.add(axis)
    return tuple(sorted(found))
