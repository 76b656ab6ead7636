"""What is written at the places of the largest elements of a tensor: a threshold in that tensor.

`zeros.scatter(-1, h.topk(k).indices, h.topk(k).values)` is `where(h >= smallest of these, h, 0)`:
the smallest of them is a statistic, held fixed.
"""

from dataclasses import dataclass

from pathlen.lowering.constants import Constants
from pathlen.lowering.equal import Same
from pathlen.lowering.moving import item_of
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.states import NONLINEAR, Of, State, meeting
from pathlen.lowering.statistics import reduced_axes
from pathlen.lowering.values import Call, Value, varying_operands

_ORDERS = frozenset(aten("topk sort max min argmax argmin argsort"))
_REDUCED = frozenset(aten("max min argmax argmin"))
_ALONE = frozenset(aten("argmax argmin argsort"))
_WRITES = frozenset(aten("scatter scatter_add scatter_reduce"))
_STEPS = frozenset(aten("slice narrow unsqueeze to _to_copy alias contiguous clone detach"))


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Places of elements in their order along an axis.

    Attributes:
        call: that orders them.
        source: the tensor whose elements they are.
        axis: the axis.
        steps: the calls that the places went through since.
    """

    call: Call
    source: Value
    axis: int
    steps: tuple[Call, ...]


def written_by_rank(call: Call) -> Order | None:
    """The order by which a call writes elements, or marks them; None for other calls."""
    if call.name == "aten.one_hot":
        order = _order_of(call["self"], item=1, viewed=False)
        whole = order is not None and order.source.shape == call.shape
        last = order is not None and order.axis == len(call.shape) - 1
        return order if whole and last else None
    if call.name not in _WRITES or call.arguments.get("reduce", "sum") not in ("sum", "add"):
        return None
    order = _order_of(call["index"], item=1)
    if order is None or order.source.shape != call.shape:
        return None
    return order if call["dim"] % len(call.shape) == order.axis else None


def read_by_rank(call: Call, order: Order) -> list[Value]:
    """The tensors of whose elements what is written by rank is a function."""
    read = [order.source]
    if call.name != "aten.one_hot":
        read += [call["self"], picked_by(call, order)]  # type: ignore[list-item]
    return [v for v in dict.fromkeys(read) if isinstance(v, Value) and v.varies]


def by_rank(call: Call, order: Order, of: Of, constants: Constants) -> State | None:
    """The state of what is written by rank: a function of each element that is ranked.

    Args:
        call: that writes.
        order: by which.
        of: gives the states of its operands.
        constants: gives what is written, where that is constant.
    """
    states = [of(order.source)]
    if call.name != "aten.one_hot":
        written = picked_by(call, order)
        if isinstance(written, Value) and not written.varies:
            if constants.one_number(written) is None:
                return None
        elif written is None:
            return None
        states += [of(call["self"]), of(written)]
    known = [state for state in states if state is not None]
    if len(known) < len(states) or not known[0].degree:
        return None
    places = meeting(known, call.shape)
    if places is None or len(places) > 1:
        return None
    whole = call.name != "aten.one_hot" and call["index"].shape == call.shape
    return State(known[2].degree if whole and known[2].degree else NONLINEAR, places)


def picked_by(call: Call, order: Order) -> object:
    """The tensor whose elements a call writes where they were, or a constant or number.

    None where it writes other elements.
    """
    written = call.arguments.get("src", call.arguments.get("value"))
    if not isinstance(written, Value) or not written.varies:
        return written
    own = _order_of(written, item=0)
    if own is None and call["index"].shape != call.shape and _is_of_values(written, order):
        return order.source
    if own is not None:
        calls, others = (own.call, *own.steps), (order.call, *order.steps)
        same = own.source is order.source and len(calls) == len(others)
        alike = same and all(map(_alike, calls, others))
        return order.source if alike else None
    gather = written.call
    if gather is None or gather.name not in aten("gather take_along_dim"):
        return None
    index = gather.arguments.get("index", gather.arguments.get("indices"))
    if not isinstance(index, Value) or Same(index) != Same(call["index"]):
        return None
    at = gather["dim"] is not None and gather["dim"] % len(call.shape) == order.axis
    return gather["self"] if at and gather["self"].shape == call.shape else None


def _is_of_values(written: Value, order: Order) -> bool:
    """Whether a tensor is a function of the largest elements alone, such as their softmax."""
    stack = [written]
    while stack:
        value = stack.pop()
        if value.call is order.call and item_of(value) == 0:
            continue
        kind = None if value.call is None else kind_of_call(value.call)
        is_statistic = value.shape.numel() < written.shape.numel()  # that may be moved
        kinds = ("elementwise", "softmax", "reduction", *(["movement"] if is_statistic else []))
        if value.call is None or kind not in kinds:
            return False
        if kind == "reduction" and reduced_axes(value.call) != [order.axis]:
            return False
        stack += varying_operands(value.call)
    return not order.steps


def _order_of(value: object, item: int, *, viewed: bool = True) -> Order | None:
    """The order that places, or elements in order, are of.

    Args:
        value: the places or elements.
        item: which of the results of a call that orders they are.
        viewed: whether an axis that the call has reduced must be there again.
    """
    steps = list[Call]()
    while isinstance(value, Value) and value.call is not None:
        call = value.call
        if call.name in _ORDERS:
            return _ordered(call, value, item, steps[::-1], viewed=viewed)
        if call.name not in _STEPS:
            return None
        steps.append(call)
        value = call["self"]
    return None


def _ordered(
    call: Call, value: Value, item: int, steps: list[Call], *, viewed: bool
) -> Order | None:
    source, axis = call["self"], call.arguments.get("dim", -1)
    if axis is None or not source.varies or not source.shape:
        return None
    if call.name in _ALONE:
        item -= 1  # what these give are places
    axis %= len(source.shape)
    added = [call["dim"] % len(source.shape) for call in steps if call.name == "aten.unsqueeze"]
    reduced = call.name in _REDUCED and not call.arguments.get("keepdim")
    wanted = [axis] if reduced and viewed else []
    return (
        Order(call, source, axis, tuple(steps))
        if (item_of(value), added) == (item, wanted)
        else None
    )


def _alike(one: Call, other: Call) -> bool:
    settings = [
        {k: v for k, v in call.arguments.items() if not isinstance(v, Value)}
        for call in (one, other)
    ]
    return one.name == other.name and settings[0] == settings[1]
