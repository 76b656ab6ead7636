"""Complex tensors: an element has a real and an imaginary part, and both belong to its unit."""

import numpy as np
import torch

from pathlen.lowering.complex_parts import parts_of
from pathlen.lowering.context import Lowering
from pathlen.lowering.elementwise import elementwise, merge_labels, scalar_function
from pathlen.lowering.labels import CONSTANT, collapse, constant_labels, distinct_tuples
from pathlen.lowering.operations import aten
from pathlen.lowering.reduced import union_over
from pathlen.lowering.regions import find_region
from pathlen.lowering.rules import Result, rule
from pathlen.lowering.values import Call, Value, varying_operands


@rule("reduction", "aten.view_as_complex")
def as_complex(call: Call, lowering: Lowering) -> Value:
    """A pair of elements becomes one: a hub over both."""
    pairs = call["self"].labels
    labels = union_over(call, pairs, [pairs.ndim - 1], lowering)
    return lowering.result(call, labels.squeeze(-1).expand(call.shape))


@rule("elementwise", "aten.complex")
def from_parts(call: Call, lowering: Lowering) -> Value:
    """Two tensors of parts become one; functions of one tensor are one function of it."""
    region = None
    if lowering.weights is None:
        region = find_region(call, varying_operands(call), lowering.constants)
    if region is not None:
        return scalar_function(region, lowering)
    operands = [value for value in call.values() if value.is_path]
    return lowering.result(call, merge_labels(call, operands, lowering))


@rule("elementwise", "aten.exp")
def exponential(call: Call, lowering: Lowering) -> Result | None:
    """Of an imaginary tensor it is written out: a cosine and a sine, its two parts."""
    real, imaginary = parts_of(call["self"], lowering.constants) or (None, None)
    if imaginary is None or not imaginary.is_path or (real is not None and real.varies):
        return elementwise(call, lowering)
    if real is not None and lowering.constants.one_number(real) != 0:
        return elementwise(call, lowering)
    return None


@rule("layer", "aten.view_as_real")
def as_pairs(call: Call, lowering: Lowering) -> Value:
    """Two new units for each unit, its real and its imaginary part, where these are not known.

    A rotary embedding in complex numbers thus has the paths of one in real numbers, where each of
    two features becomes a sum of both.
    """
    known = parts_of(call["self"], lowering.constants)
    if known is not None:
        parts = [_part(call, part, call["self"].shape, lowering) for part in known]
        stacked = torch.stack([part.labels for part in parts], -1)
        value = lowering.result(call, collapse(stacked))
        stack = torch.ops.aten.stack.default
        value.call = Call(stack, "aten.stack", {"tensors": parts, "dim": -1}, call.node, call.like)
        return value
    labels = lowering.unified(call["self"].labels).unsqueeze(-1).expand(call.shape)
    part = torch.arange(2).expand(call.shape)
    tuples, spread = distinct_tuples([labels, part])
    rows = tuples[:, 0] != CONSTANT
    lowering.layer(call)
    units = np.full(len(tuples), CONSTANT, dtype=np.int64)
    units[rows] = lowering.builder.units(np.ascontiguousarray(tuples[rows, 0]))
    return lowering.result(call, spread(units))


@rule("elementwise", *aten("real imag"))
def part(call: Call, lowering: Lowering) -> Value:
    """One part of each element: the tensor that it was built from, or the same units."""
    known = parts_of(call["self"], lowering.constants)
    if known is None:
        return lowering.result(call, call["self"].labels)
    return _part(call, known[call.operation == "imag"], call.shape, lowering)


@rule(
    "elementwise",
    *aten("conj _conj conj_physical _conj_physical resolve_conj resolve_neg _neg_view"),
)
def conjugate(call: Call, lowering: Lowering) -> Value:
    """The conjugate of each element: the same units."""
    return lowering.result(call, call["self"].labels)


def _part(call: Call, known: Value | None, shape: torch.Size, lowering: Lowering) -> Value:
    """A part that is known, as the result of a call; None is one of zeros."""
    if known is None or not known.varies:
        return lowering.value(call.node, constant_labels(shape), torch.float32, varies=True)
    like = torch.empty(shape, dtype=known.dtype, device="meta")
    alias = Call(torch.ops.aten.alias.default, "aten.alias", {"self": known}, call.node, like)
    return lowering.value(call.node, known.labels, known.dtype, varies=True, call=alias)
