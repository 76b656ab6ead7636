"""Elements that are read or written where a mask says so: they keep their places."""

from typing import Any

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.equal import Same
from pathlen.lowering.moving import item_of
from pathlen.lowering.operations import aten, call_by_name
from pathlen.lowering.places import Places
from pathlen.lowering.placing import VIEWS
from pathlen.lowering.states import CONSTANT, NONLINEAR, Of, State, meeting
from pathlen.lowering.values import Call, Value

_BY_MASKS = frozenset(
    aten(
        "index masked_select masked_scatter index_put _index_put_impl _unsafe_index_put index_fill"
        " index_select gather index_copy scatter put index_add scatter_add"
    )
)
READS = frozenset(aten("index masked_select index_select gather"))
"""Operations that read elements where a mask says so; the others write."""
_ADDS = frozenset(aten("index_add scatter_add"))
_COLUMNS = frozenset(
    aten("select unbind squeeze view reshape transpose t numpy_T permute slice flatten alias")
)


def masked(call: Call, of: Of, constants: Constants) -> State | None:
    """Elements read or written where a mask says so: they keep their places."""
    mask = mask_of(call)
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
    if call.name in READS:
        if not source.varies and constants.one_number(source) is not None:
            return CONSTANT
        state = of(source)
        if state is None or not state.degree:
            return None
        shape = tuple(call.shape)
        return State(state.degree, (Places(shape, (0,) * len(shape), key=key),))
    written = written_by(call)
    from_there = isinstance(written, Value) and written.varies
    if from_there:
        state = of(written)
        if state is None or not state.degree or len(state.places) != 1:
            return None
        own = state.places[0].key
        if not isinstance(own, tuple) or own[:2] != key[:2] or not _agree(own[2], places):
            return None
        places = own[2]
    elif isinstance(written, Value) and constants.one_number(written) is None:
        return None
    return State(NONLINEAR, places) if places else None


def written_by(call: Call) -> Any:
    """What a call writes: a tensor or a number."""
    names = ("source", "src", "values", "value")
    return next(call.arguments[name] for name in names if name in call.arguments)


def adds_to_what_is_there(call: Call) -> bool:
    """Whether a call that writes to elements adds to them."""
    return call.name in _ADDS or bool(call.arguments.get("accumulate"))


def chosen_from(call: Call) -> Value | None:
    """The tensor from which a call takes, by the same mask, what it writes where a mask says so."""
    mask, written = mask_of(call), None if call.name in READS else written_by(call)
    if mask is None or not mask.varies or not isinstance(written, Value):
        return None
    if adds_to_what_is_there(call):
        return None
    while written.call is not None and written.call.name in VIEWS:
        written = written.call["self"]  # one element is written as a scalar
    if written.call is None or written.call.name not in READS:
        return None
    other = mask_of(written.call)
    source: Value = written.call["self"]
    same = other is not None and Same(other) == Same(mask)
    return source if same and source.shape == call["self"].shape else None


def mask_of(call: Call) -> Value | None:
    """The boolean tensor that says for each element whether it is read or written.

    It may be given as the places where it is true, as `nonzero` and `where` list them.
    """
    if call.name not in _BY_MASKS:
        return None
    mask = call.arguments.get("mask")
    if mask is None:
        indices = call.arguments.get("indices", [call.arguments.get("index")])
        given = [i for i in indices if isinstance(i, Value)]
        mask = given[0] if len(given) == 1 and given[0].dtype == torch.bool else None
        if given and mask is None and len(given) == len(indices):
            mask = _where_true(given)
    if not isinstance(mask, Value) or mask.dtype != torch.bool:
        return None
    return mask if mask.shape == call["self"].shape else None


def _where_true(indices: list[Value]) -> Value | None:
    """The mask that is true at the places with these indices, one tensor an axis; or None."""
    found = [_axis_of_nonzero(index) for index in indices]
    known = [one for one in found if one is not None]
    if len(known) < len(found) or [axis for _, axis in known] != list(range(len(known))):
        return None
    mask = known[0][0]
    same = all(Same(other) == Same(mask) for other, _ in known)
    return mask if same and len(mask.shape) == len(known) else None


def _axis_of_nonzero(index: Value) -> tuple[Value, int] | None:
    """The tensor of whose places that are not zero an index is one axis, and which."""
    call = index.call
    if call is None:
        return None
    if call.name in ("aten.nonzero_numpy", "aten.where"):
        mask, axis = call.arguments.get("self", call.arguments.get("condition")), item_of(index)
        return None if axis is None else (mask, axis)
    listed, column = index, 0
    steps = list[Call]()
    while listed.call is not None and listed.call.name in _COLUMNS:
        steps.append(listed.call)
        if listed.call.name == "aten.unbind":
            column = item_of(listed) or 0
        listed = listed.call["self"]
    if listed.call is None or listed.call.name != "aten.nonzero":
        return None
    axis = _column(steps[::-1], listed, column)
    return None if axis is None else (listed.call["self"], axis)


def _column(steps: list[Call], listed: Value, item: int) -> int | None:
    """Which column of a list of places is left after views of it, None where it is not one."""
    rows, columns = listed.shape
    numbers = torch.arange(columns).expand(rows, columns)
    for step in steps:
        moved = call_by_name(step.func, {**step.arguments, "self": numbers})
        numbers = moved if isinstance(moved, torch.Tensor) else moved[item]
    if numbers.ndim != 1 or len(numbers) != rows:
        return None
    if not rows:
        return 0 if columns == 1 else None
    return int(numbers[0]) if bool((numbers == numbers[0]).all()) else None


def _agree(one: tuple[Places, ...], other: tuple[Places, ...]) -> bool:
    return not other or one == other
