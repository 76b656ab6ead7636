"""Sums of one-hot vectors, which put elements at their places: what `scatter` writes to zeros.

`(one_hot(places, n) * values[..., None]).sum(-2)` is `zeros.scatter(-1, places, values)`, and
without values it marks the places.
"""

from typing import Any

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.one_hot import numbers_of_one_hot
from pathlen.lowering.placing import before_views
from pathlen.lowering.ranks import picked_by, written_by_rank
from pathlen.lowering.states import PRODUCTS
from pathlen.lowering.statistics import keeps_axes, reduced_axes
from pathlen.lowering.values import Call, Value


def as_written(call: Call, constants: Constants) -> Call:
    """A sum of one-hot vectors of the largest elements as what writes these; others as they are."""
    axes = reduced_axes(call) if call.name == "aten.sum" and not keeps_axes(call) else None
    if axes is None or axes != [len(call["self"].shape) - 2]:
        return call
    pairs: list[tuple[Any, Any]] = [(call["self"], 1)]
    product = before_views(call["self"], constants)
    if product is not None and product.call is not None and product.call.name in PRODUCTS:
        one, other = product.call["self"], product.call["other"]
        pairs = [(one, other), (other, one)] if product.shape == call["self"].shape else []
    for marked, beside in pairs:
        if not isinstance(marked, Value) or marked.is_path or not marked.varies:
            continue
        whole = marked.shape == call["self"].shape
        numbers = numbers_of_one_hot(marked, len(marked.shape) - 1, constants) if whole else None
        places = None if numbers is None else before_views(numbers, constants)
        if places is None or places.shape != marked.shape[:-1]:
            continue
        written = _scatter(call, places, beside, constants)
        order = None if written is None else written_by_rank(written)
        if written is not None and order is not None and picked_by(written, order) is not None:
            return written
    return call


def _scatter(call: Call, places: Value, beside: Any, constants: Constants) -> Call | None:
    like = torch.empty(call.shape, dtype=call.output.dtype, device="meta")
    arguments: dict[str, object] = {"self": 0.0, "dim": -1, "index": places}
    if not isinstance(beside, Value):
        func, arguments["value"] = torch.ops.aten.scatter.value, beside
    else:
        written = before_views(beside, constants)
        if written is None or written.shape != places.shape:
            return None
        func, arguments["src"] = torch.ops.aten.scatter.src, written
    return Call(func, "aten.scatter", arguments, call.node, like)
