"""What is added up at indices and read again at the same: a statistic of neighbours."""

from pathlen.lowering.equal import Same
from pathlen.lowering.operations import aten
from pathlen.lowering.places import Places
from pathlen.lowering.states import Of, State
from pathlen.lowering.values import Call, Value

PUTS = aten("index_put _index_put_impl _unsafe_index_put")
_ADDS = aten("scatter_add scatter_reduce index_add index_reduce")
_GATHERS = aten("gather index_select index _unsafe_index")


def restored(call: Call, of: Of) -> State | None:
    """What was added up at indices, read again at the same ones: a statistic of neighbours."""
    if call.name in _ADDS or call.name in PUTS:
        return _added_up(call, of)
    if call.name not in _GATHERS:
        return None
    state, place = of(call["self"]), _place_of(call)
    if state is None or state.degree or place is None or not state.places:
        return None
    own = state.places[0].key
    if not isinstance(own, tuple) or own[0] != "added" or len(state.places) > 1:
        return None
    _, index, axis, places = own
    if axis != place[1] or Same(place[0]) != index:
        return None
    return State(0, places, state.part, state.scale)


def _added_up(call: Call, of: Of) -> State | None:
    place = _place_of(call)
    written = call.arguments.get("src", call.arguments.get("source"))
    if call.name in PUTS:
        written = call["values"] if call["accumulate"] else None
    if place is None or not isinstance(written, Value) or call["self"].varies:
        return None
    state = of(written)
    if state is None or not state.places:
        return None
    shape = tuple(call.shape)
    # each element that is read back went into what is read
    key = ("added", Same(place[0]), place[1], state.places)
    how = call.arguments.get("reduce", "sum")
    part = "sum" if state.part == "exp" and how in ("sum", "mean") else ""
    return State(0, (Places(shape, (0,) * len(shape), key=key),), part, state.scale)


def _place_of(call: Call) -> tuple[Value, int] | None:
    """The one index of a call that reads or writes at indices, and the axis that it indexes."""
    if "indices" in call.arguments:
        found = [(i, axis) for axis, i in enumerate(call["indices"]) if i is not None]
        return found[0] if len(found) == 1 else None
    index = call.arguments.get("index")
    if not isinstance(index, Value) or call.arguments.get("dim") is None:
        return None
    return index, call["dim"] % max(len(call["self"].shape), 1)
