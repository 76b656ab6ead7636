"""Normalizations and softmax: they pass each unit to itself."""

from pathlen.lowering.context import Lowering
from pathlen.lowering.rules import rule
from pathlen.lowering.values import Call, Value
from pathlen.lowering.weighted_merges import normalized


@rule(
    "normalization",
    "aten.batch_norm",
    "aten.instance_norm",
    "aten.layer_norm",
    "aten.group_norm",
    "aten.rms_norm",
    "aten.local_response_norm",
)
def normalization(call: Call, lowering: Lowering) -> Value:
    """The same units; batch norm with running statistics is affine and is never counted."""
    source = next(value for value in call.values() if value.varies)
    batch_statistics = call.arguments.get("use_input_stats", call.arguments.get("training", True))
    labels = (
        lowering.counted("normalization", call, source.labels)
        if batch_statistics
        else (source.labels)
    )
    if batch_statistics:
        lowering.by_data()
    return lowering.result(call, normalized(call, labels, lowering))


@rule("softmax", "aten.softmax", "aten.log_softmax", "aten._softmax", "aten._log_softmax")
def softmax(call: Call, lowering: Lowering) -> Value:
    """The same units, as if the denominator were held fixed."""
    lowering.by_data()
    labels = lowering.counted("softmax", call, call["self"].labels)
    return lowering.result(call, labels, softmax="log" if "log" in call.name else "whole")
