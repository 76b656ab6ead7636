"""Input units: the features that the first layer to read an input tells apart."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from pathlen.errors import TraceError
from pathlen.lowering.labels import CONSTANT, broadcast, channel_labels, collapse
from pathlen.lowering.movement import run_on_labels
from pathlen.lowering.operations import aten, functional
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.values import Call, bind_call

_PRODUCTS = aten("matmul mm bmm addmm baddbmm addbmm")
_RECURRENT = aten("lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
_KEEPS_ELEMENTS = ("elementwise", "normalization", "softmax")


def input_features(
    node: fx.Node, graph: fx.Graph, input_axis: int | Mapping[str, int] | None
) -> torch.Tensor:
    """The feature that each element of an input belongs to, counted from 0.

    Channels for a convolution, positions along the contracted axis for a linear layer; an integer
    input is one feature, a bool input none (-1). An input that no layer reads has its features
    along axis 1.

    Args:
        node: placeholder of the input.
        graph: the program.
        input_axis: the axis of the features, or a mapping from the names of inputs to axes.

    Raises:
        TraceError: `input_axis` names no axis of the input.
    """
    val = node.meta["val"]
    if val.dtype == torch.bool:
        return torch.full((), CONSTANT).expand(val.shape)
    if not (val.is_floating_point() or val.is_complex()) or val.ndim == 0:
        return torch.zeros((), dtype=torch.int64).expand(val.shape)
    name = node.meta.get("input_name", node.name)
    axis = input_axis.get(name) if isinstance(input_axis, Mapping) else input_axis
    if axis is not None:
        if not -val.ndim <= axis < val.ndim:
            raise TraceError(f"input_axis={axis} does not fit input {name!r} {tuple(val.shape)}")
        return _along(val.shape, axis % val.ndim)
    return _first_read(node, graph)


def check_input_axis(graph: fx.Graph, input_axis: int | Mapping[str, int] | None) -> None:
    """Raise TraceError if `input_axis` is a mapping with a name that no input has."""
    if isinstance(input_axis, Mapping):
        nodes = [node for node in graph.nodes if node.op == "placeholder"]
        names = [node.meta.get("input_name", node.name) for node in nodes]
        for name in input_axis:
            if name not in names:
                raise TraceError(
                    f"input_axis names {name!r}, but the inputs are {', '.join(map(repr, names))}"
                )


def _first_read(node: fx.Node, graph: fx.Graph) -> torch.Tensor:
    """Follow the elements of an input, each with a number, to the layers that read them."""
    shape = node.meta["val"].shape
    elements = torch.arange(shape.numel()).view(shape)
    feature = np.full(shape.numel(), CONSTANT)
    followed: dict[fx.Node, torch.Tensor] = {node: elements}
    axes: dict[int, int] = {}
    features = 0
    for user in graph.nodes:
        read = next((n for n in user.all_input_nodes if n in followed), None)
        if read is None or not isinstance(user.target, torch._ops.OpOverload):
            if read is not None and user.op == "call_function":
                _follow_item(user, followed)
            continue
        call = _call_of(user)
        kind = kind_of_call(call)
        axis = _feature_axis(call, read)
        if axis is not None:
            if followed[read] is elements:
                return _along(shape, axis % len(shape))
            features = _assign(feature, followed[read], axis, features, shape, axes)
            if (feature != CONSTANT).all():
                break
        elif kind in _KEEPS_ELEMENTS:
            followed[user] = broadcast(followed[read], call.shape)
        elif kind == "movement":
            moved = _move(call, followed)
            if moved is not None:
                followed[user] = moved
    if (feature == CONSTANT).all():
        return _along(shape, min(1, len(shape) - 1))
    feature[feature == CONSTANT] = features  # what no layer reads is one unit
    return collapse(torch.from_numpy(np.unique(feature, return_inverse=True)[1]).view(shape))


def _assign(
    feature: np.ndarray,
    elements: torch.Tensor,
    axis: int,
    features: int,
    shape: torch.Size,
    axes: dict[int, int],
) -> int:
    """Give each element that is still free the feature at which a layer reads it.

    Elements that the layer reads at several features (overlapping windows) make these one. Where
    the features lie along an axis of the input, they are the same at all positions: those of the
    second step that a cell reads are those of the first.

    Args:
        feature: of every element so far; written to.
        elements: that the layer reads.
        axis: of `elements`, the positions along which are the features.
        features: the number of features so far.
        shape: of the input.
        axes: the first feature of each axis of the input that was read along; written to.

    Returns:
        The number of features so far.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = elements.shape[axis]
    at = torch.arange(count).view(
        [-1 if a == axis % elements.ndim else 1 for a in range(elements.ndim)]
    )
    ids = elements.reshape(-1).numpy()
    places = at.expand(elements.shape).reshape(-1).numpy()
    free = (ids != CONSTANT) & (feature[ids] == CONSTANT)
    ids, places = ids[free], places[free]
    own_axis = _axis_read(ids, places, shape)
    if own_axis is not None:
        first = axes.setdefault(own_axis, features)
        feature[ids] = first + np.unravel_index(ids, shape)[own_axis]
        return max(features, first + shape[own_axis])
    nodes = len(feature) + count
    links = coo_array(
        (np.ones(len(ids), dtype=np.int8), (ids, places + len(feature))), (nodes, nodes)
    )
    _, component = connected_components(links, directed=False)
    _, number = np.unique(component[places + len(feature)], return_inverse=True)
    feature[ids] = features + number
    return features + (int(number.max()) + 1 if len(number) else 0)


def _axis_read(ids: np.ndarray, places: np.ndarray, shape: torch.Size) -> int | None:
    """The axis of an input along which elements lie as they do in what a layer reads, or None.

    Of several (a layer that reads a single feature) the one most of which is read, then the last.
    """
    found: list[tuple[float, int]] = []
    for axis, coordinate in enumerate(np.unravel_index(ids, shape)):
        pairs = len(np.unique(coordinate * (int(places.max(initial=0)) + 1) + places))
        if pairs and pairs == len(np.unique(coordinate)) == len(np.unique(places)):
            found.append((pairs / shape[axis], axis))
    return max(found)[1] if found else None


def _feature_axis(call: Call, read: fx.Node) -> int | None:
    """The axis of `read` whose positions a layer tells apart; None where the call is no layer."""
    if call.name in _RECURRENT:
        return -1
    if kind_of_call(call) not in ("layer", "contraction"):
        return None
    dimensions = read.meta["val"].ndim
    if "conv" in call.name:
        return int(dimensions - call["weight"].meta["val"].ndim + 1)
    if call.name == "aten.einsum":
        inputs, _, out = call["equation"].replace(" ", "").partition("->")
        letters = inputs.split(",")[[*call["tensors"]].index(read)]
        summed = [i - len(letters) for i, letter in enumerate(letters) if letter not in out]
        return summed[-1] if summed else -1
    operands = call.node.all_input_nodes
    is_right_factor = len(operands) > 1 and operands[-1] is read and dimensions > 1
    return -2 if is_right_factor and call.name in _PRODUCTS else -1


def _move(call: Call, followed: Mapping[fx.Node, torch.Tensor]) -> Any:
    """The elements after a movement; None where it needs more than shapes (indices)."""

    def element(argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            if argument in followed:
                return followed[argument]
            val = argument.meta["val"]
            return torch.full((), CONSTANT).expand(val.shape)
        if isinstance(argument, (list, tuple)):
            return [element(item) for item in argument]
        return argument

    if any(isinstance(call.arguments.get(name), (fx.Node, list)) for name in ("index", "indices")):
        return None
    arguments = {name: element(argument) for name, argument in call.arguments.items()}
    if call.name == "aten.pad" and call["mode"] != "constant":  # has no kernels for integers
        moved = run_on_labels(call.func, {**arguments, "self": arguments["self"].double()})
        return moved.long()
    if call.name in ("aten.pad", "aten.constant_pad_nd"):
        arguments["value"] = CONSTANT
    return run_on_labels(functional(call.func), arguments)


def _follow_item(user: fx.Node, followed: dict[fx.Node, Any]) -> None:
    source, position = user.args[0], user.args[1]
    if isinstance(source, fx.Node) and isinstance(followed.get(source), (list, tuple)):
        followed[user] = followed[source][position]


def _call_of(node: fx.Node) -> Call:
    return bind_call(node.target, node.args, node.kwargs, node)


def _along(shape: torch.Size, axis: int) -> torch.Tensor:
    return channel_labels(np.arange(shape[axis]), shape, axis)
