"""Operations that say where elements are, or how many: no path leads through them."""

from typing import Any

import torch

from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import constant_labels
from pathlen.lowering.operations import aten
from pathlen.lowering.reduced import union_over
from pathlen.lowering.rules import Result, rule
from pathlen.lowering.values import Call, Value


@rule(
    "cut",
    "aten.where.default",
    *aten("argmax argmin nonzero nonzero_static searchsorted histc count_nonzero"),
)
def places(call: Call, lowering: Lowering) -> Any:
    """Places and counts, also of integers that carry paths themselves."""
    return lowering.cut(call)


@rule("elementwise", "aten.bucketize", "aten.one_hot")
def buckets(call: Call, lowering: Lowering) -> Any:
    """Integers too, each of one element."""
    return lowering.cut(call)


@rule("cut", "aten.bincount")
def bincount(call: Call, lowering: Lowering) -> Value:
    """Counts; with weights, sums of any of these."""
    weights = call["weights"]
    if weights is None or not weights.is_path:
        return lowering.result(call, constant_labels(call.shape))
    labels = union_over(call, weights.labels, range(weights.labels.ndim), lowering)
    if weights.labels.numel() > 1:
        lowering.uncertain(call, "how many elements are added up at an index")
    return lowering.result(call, labels.reshape(()).expand(call.shape))


@rule("reduction", *aten("unique_consecutive _unique _unique2 unique_dim unique_dim_consecutive"))
def unique(call: Call, lowering: Lowering) -> Result:
    """Any of the elements; where they stand and how many they are cuts."""
    labels, axis = call["self"].labels, call.arguments.get("dim")
    axes = range(labels.ndim) if axis is None else [axis % labels.ndim]
    merged = union_over(call, labels, axes, lowering)
    merged = (merged.reshape(()) if axis is None else merged).expand(call.shape)
    others = call.node.meta["val"][1:]
    return lowering.result(call, merged), *(
        lowering.result(call, constant_labels(val.shape), dtype=torch.int64) for val in others
    )
