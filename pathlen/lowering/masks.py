"""Elements that are read or written where a mask says so: they keep their places."""

import torch

from pathlen.lowering.equal import Same
from pathlen.lowering.places import Places
from pathlen.lowering.placing import VIEWS
from pathlen.lowering.states import NONLINEAR, Of, State, meeting
from pathlen.lowering.values import Call, Value


def masked(call: Call, of: Of) -> State | None:
    """Elements read or written where a mask says so: they keep their places."""
    mask = _mask_of(call)
    if mask is None or not mask.varies:
        return None
    source = call["self"]
    where = of(mask)
    if where is None:
        return None
    states = [s for v in (source, mask) if (s := of(v)) is not None and v.varies]
    places = meeting(states, source.shape)
    if places is None or len(places) > 1:
        return None
    key = ("masked", Same(mask), places)
    if call.name in ("aten.index", "aten.masked_select"):
        state = of(source)
        if state is None or not state.degree:
            return None
        shape = tuple(call.shape)
        return State(state.degree, (Places(shape, (0,) * len(shape), key=key),))
    written = call["source"] if call.name == "aten.masked_scatter" else call["values"]
    if call.arguments.get("accumulate"):
        return None
    from_there = isinstance(written, Value) and written.varies
    if from_there:
        state = of(written)
        if state is None or not state.degree or len(state.places) != 1:
            return None
        own = state.places[0].key
        if not isinstance(own, tuple) or own[:2] != key[:2] or not _agree(own[2], places):
            return None
        places = own[2]
    elif isinstance(written, Value) and written.labels.numel() != 1:
        return None
    return State(NONLINEAR, places) if places else None


def chosen_from(call: Call) -> Value | None:
    """The tensor from which a call takes, by the same mask, what it writes where a mask says so."""
    mask, written = _mask_of(call), call.arguments.get("values", call.arguments.get("source"))
    if mask is None or not mask.varies or not isinstance(written, Value):
        return None
    while written.call is not None and written.call.name in VIEWS:
        written = written.call["self"]  # one element is written as a scalar
    if written.call is None or written.call.name not in ("aten.index", "aten.masked_select"):
        return None
    other = _mask_of(written.call)
    source: Value = written.call["self"]
    same = other is not None and Same(other) == Same(mask)
    return source if same and source.shape == call["self"].shape else None


def _mask_of(call: Call) -> Value | None:
    """The boolean tensor that says for each element whether it is read or written."""
    mask = call.arguments.get("mask")
    if mask is None:
        indices = [i for i in call.arguments.get("indices") or () if i is not None]
        mask = indices[0] if len(indices) == 1 else None
    if not isinstance(mask, Value) or mask.dtype != torch.bool:
        return None
    return mask if mask.shape == call["self"].shape else None


def _agree(one: tuple[Places, ...], other: tuple[Places, ...]) -> bool:
    return not other or one == other
