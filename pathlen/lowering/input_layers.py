"""Along which axes of its operands a layer tells features apart."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import fx

from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.values import Call, Value, bind_call

_PRODUCTS = frozenset(aten("matmul mm bmm addmm baddbmm addbmm mv addmv dot vdot"))
_RECURRENT = frozenset(
    aten("lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
)
_OF_CHANNELS = frozenset(aten("batch_norm group_norm instance_norm"))
_OF_LAST_AXES = frozenset(aten("layer_norm rms_norm"))
_ELLIPSIS = "0123456789"  # letters for the axes that an ellipsis stands for


def contracted_axes(
    call: Call, terms: tuple[list[str], str] | None
) -> list[tuple[Value, Sequence[int]]]:
    """The operands of a layer and the axes of each that it contracts; empty for other calls.

    A matrix of softmax scores tells nothing about the axis along which it adds up values, which
    are positions: their features lie on the last axis, as in scaled dot product attention.

    Args:
        call: the call.
        terms: of an einsum, see `einsum_terms`.
    """
    values = list(call.values())
    if terms is not None:
        return _by_letters(values, *terms)
    if call.name in _RECURRENT:
        return [(value, [-1]) for value in values]
    if kind_of_call(call) not in ("layer", "contraction") or "fft" in call.name:
        return []
    if call.name == "aten.view_as_real":
        return []
    if call.name in _PRODUCTS:
        left, right = values[-2:]
        is_matrix = len(right.shape) > 1 and not _is_softmax(left.node)
        return [(left, [-1]), (right, [-2 if is_matrix else -1])]
    if "conv" in call.name:
        image, weight = call["input"], call["weight"]
        return [(image, [len(image.shape) - len(weight.shape) + 1]), (weight, [1])]
    return [(value, [-1]) for value in values if value.shape]


def is_chooser(node: fx.Node) -> bool:
    """Whether a tensor is made of masks, counts and places alone: as a factor it chooses."""
    val = node.meta.get("val")
    if isinstance(val, torch.Tensor) and not (val.is_floating_point() or val.is_complex()):
        return True
    kind = _kind_of_node(node)
    sources = node.all_input_nodes
    moved = kind in ("elementwise", "movement", "reduction")
    return moved and bool(sources) and all(map(is_chooser, sources))


def weakly_read_axes(call: Call) -> Sequence[int]:
    """The axes along which a normalization has parameters, or that a Fourier transform mixes.

    Empty for other calls, and for transforms along several axes, which are those of an image.
    """
    if call.arguments.get("weight") is not None:
        if call.name in _OF_CHANNELS:
            return [1]
        if call.name in _OF_LAST_AXES:
            return range(-len(call["normalized_shape"]), 0)
    if "fft" in call.name:
        axes = call.arguments.get("dim")
        axes = [axes] if isinstance(axes, int) else axes
        return axes if axes and len(axes) == 1 else []
    return []


def einsum_terms(call: Call) -> tuple[list[str], str] | None:
    """The letters of each operand's axes and of the result's, None where a call is no einsum."""
    if call.name != "aten.einsum":
        return None
    inputs, arrow, out = call["equation"].replace(" ", "").partition("->")
    terms = []
    for letters, value in zip(inputs.split(","), call.values(), strict=True):
        rest = len(value.shape) - len(letters.replace("...", ""))
        terms.append(letters.replace("...", _ELLIPSIS[len(_ELLIPSIS) - rest :] if rest else ""))
    longest = max((sum(a in _ELLIPSIS for a in letters) for letters in terms), default=0)
    all_ = _ELLIPSIS[len(_ELLIPSIS) - longest :] if longest else ""
    if not arrow:
        count = Counter("".join(terms))
        out = all_ + "".join(sorted(a for a in count if count[a] == 1 and a not in _ELLIPSIS))
    return terms, out.replace("...", all_)


def _by_letters(
    values: Sequence[Value], inputs: list[str], out: str
) -> list[tuple[Value, Sequence[int]]]:
    """Contracted are the letters that several operands have and the result has not."""
    found: list[tuple[Value, Sequence[int]]] = []
    for number, (value, letters) in enumerate(zip(values, inputs, strict=True)):
        others = "".join(inputs[:number] + inputs[number + 1 :])
        axes = [i for i, a in enumerate(letters) if a not in out and a in others]
        if axes:
            scores = any(_is_softmax(other.node) for other in values if other is not value)
            found.append((value, [-1] if scores and number else axes))
    return found


def _is_softmax(node: fx.Node) -> bool:
    """Whether a node is a softmax, moved or scaled since at most."""
    while _kind_of_node(node) in ("movement", "elementwise") and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return _kind_of_node(node) == "softmax"


def _kind_of_node(node: fx.Node) -> str | None:
    """The kind of the call that a node is; None where it calls no operator."""
    if node.op != "call_function" or not hasattr(node.target, "_schema"):
        return None
    return kind_of_call(bind_call(node.target, node.args, node.kwargs, node))
