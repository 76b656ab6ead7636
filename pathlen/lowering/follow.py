"""Follows the elements of a tensor through a region of calls: which meet, and what becomes of them.

Each value between an entry and a call gets a state: of what degree it is in the elements of the
entry, statistics held fixed, and where in the entry its elements come from. Elements that meet must
come from the same place; a statistic must be broadcast back over what was reduced to it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.labels import is_position_axis
from pathlen.lowering.moving import item_of, moved_operands, places_of, run_movement
from pathlen.lowering.operations import aten, call_by_name, functional
from pathlen.lowering.places import MOST_ELEMENTS, Places, identity, numbered, viewed
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.values import Call, Value, varying_operands

NONLINEAR = math.inf
SUMS = frozenset(aten("add sub rsub subtract"))
SAME = frozenset(
    aten(
        "neg negative positive clone alias detach contiguous to _to_copy type_as dropout"
        " feature_dropout alpha_dropout feature_alpha_dropout nan_to_num lift_fresh_copy"
    )
)
EXPONENTIALS = frozenset(aten("exp exp2"))
_PRODUCTS = frozenset(aten("mul multiply"))
_QUOTIENTS = frozenset(aten("div divide true_divide"))
_KEEP_SUM = SAME | SUMS | _PRODUCTS | frozenset(aten("clamp clamp_min maximum"))
_KEEP_SIGN = frozenset(aten("masked_fill where abs"))
_TOTALS = frozenset(aten("sum mean nansum"))
_MATRIX_PRODUCTS = frozenset(aten("matmul mm bmm mv dot vdot linear"))
_ORDERINGS = frozenset(aten("sort topk msort"))
_REDUCTIONS = frozenset(
    aten(
        "mean sum nansum amax amin max min norm linalg_vector_norm logsumexp var std prod var_mean"
        " std_mean median nanmedian mode kthvalue quantile nanquantile"
    )
)
JOINS = aten("stack cat concat concatenate")
_PUTS = aten("index_put _index_put_impl _unsafe_index_put")
_ADDS = aten("scatter_add scatter_reduce index_add index_reduce")
_GATHERS = aten("gather index_select index _unsafe_index")


@dataclass(frozen=True, slots=True)
class State:
    """What a value is as a function of the elements of an entry.

    Attributes:
        degree: 0 for a statistic, 1 for an affine function, `NONLINEAR` for another one.
        places: of the elements in the entry; of a statistic, of all that went into it.
        part: which part of a softmax it is: "exp" of an affine function, the "sum" of these, its
            "inverse", the "log" of a sum, "shifted" by that (log softmax) or a "softmax"; or that
            elements are "ordered" by size, of which one alone is a statistic.
        scale: what the elements are multiplied by in an affine function, or in the exponent: a
            number, and what else; two are equal only if they are known to be.
    """

    degree: float
    places: tuple[Places, ...]
    part: str = ""
    scale: tuple[Any, ...] = (1.0,)


CONSTANT = State(0, ())


def follow(
    entry: Value, between: tuple[Value, ...], call: Call, constants: Constants
) -> State | None:
    """The state of the (first) result of a call, None where it is no function of single elements.

    Args:
        entry: what the elements belong to.
        between: values between it and the call, in order.
        call: the last call.
        constants: gives the indices of movements, and matrices that only add up.
    """
    follower = Follower(entry, constants)
    for value in between:
        follower.add(value)
    return follower.state_of_call(call, 0)


class Follower:
    """States of values as functions of an entry.

    Args:
        entry: the entry.
        constants: gives the indices of movements.

    Attributes:
        known: the states of the values that were added.
    """

    def __init__(self, entry: Value, constants: Constants) -> None:
        part = "exp" if entry.softmax == "exp" else ""
        self.known: dict[int, State | None] = {id(entry): State(1, (identity(entry.shape),), part)}
        self._constants = constants
        self._exponential = entry.softmax == "exp"

    def add(self, value: Value) -> None:
        """Find the state of a value, whose operands have theirs."""
        assert value.call is not None
        item = item_of(value)
        state = None if item is None else self.state_of_call(value.call, item)
        if state is not None and value.softmax in ("log", "whole"):
            held = value.softmax == "whole"
            state = replace(state, degree=0, part="") if held else replace(state, part="shifted")
        self.known[id(value)] = state

    def state_of_call(self, call: Call, item: int) -> State | None:
        """The state of a result of a call."""
        pieces = stacked_pieces(call, self._constants)
        if pieces is not None:
            return self._over_pieces(call, pieces)
        states = [self._of(value) for value in followed_operands(call)]
        if any(state is None for state in states):
            return None
        kind = kind_of_call(call)
        if call.name in ("aten.index", "aten.masked_select") or call.name in _PUTS:
            masked = self._masked(call)
            if masked is not None:
                return masked
        if call.name == "aten.masked_scatter":
            return self._masked(call)
        if kind == "elementwise":
            return self._elementwise(call)
        if kind in ("normalization", "softmax"):
            return self._normalized(call, kind)
        if kind == "movement":
            return self._moved(call, item)
        if kind == "reduction":
            return self._reduced(call)
        if kind in ("contraction", "layer"):
            return self._contracted(call)
        return None

    def _of(self, argument: Any) -> State | None:
        if not isinstance(argument, Value) or not argument.varies:
            return CONSTANT
        return self.known.get(id(argument))

    def _elementwise(self, call: Call) -> State | None:
        named = {name: self._of(argument) for name, argument in call.arguments.items()}
        states = {n: s for n, s in named.items() if s is not None}
        places = self._meeting(list(states.values()), call.shape)
        if places is None:
            return None
        degree = degree_by_name(call, {name: state.degree for name, state in states.items()})
        return State(degree, places, _part(call, states), _scale(call, states))

    def _meeting(self, states: list[State], shape: torch.Size) -> tuple[Places, ...] | None:
        """Places of elements that meet; None where those of different places do."""
        moving = {p.expanded(shape) for s in states if s.degree for p in s.places}
        held = {p.expanded(shape) for s in states if not s.degree for p in s.places}
        if any(s.part == "ordered" and any(map(_repeats, s.places)) for s in states):
            return None
        if not moving:
            return tuple(sorted(held, key=hash))
        if len(moving) > 1:
            return None
        (places,) = moving
        return (places,) if all(one.includes(places) for one in held) else None

    def _normalized(self, call: Call, kind: str) -> State | None:
        source = self._of(varying_operands(call)[0])
        if source is None or not source.degree or len(varying_operands(call)) > 1:
            return None
        if kind == "normalization":
            return replace(source, part="")
        if "log" in call.name:
            return replace(source, part="shifted")
        return State(0, source.places)  # a softmax that meets its entry is held fixed

    def _moved(self, call: Call, item: int) -> State | None:
        """Elements in other places; those of several tensors that become one included."""
        restored = self._restored(call)
        if restored is not None:
            return restored
        if any(value.varies for value in places_of(call)):
            return None
        operands = moved_operands(call)
        varying = [v for v in operands if v.varies]
        states = [self.known.get(id(v)) for v in varying]
        if len(varying) == 1 and states[0] is not None:
            moved = [self.moved_places(call, varying[0], p, item) for p in states[0].places]
            if any(p is None for p in moved):
                return None
            part = states[0].part if states[0].part != "log" or not states[0].degree else ""
            return replace(states[0], places=tuple(p for p in moved if p is not None), part=part)
        return self._joined(call, operands, item)

    def moved_places(self, call: Call, value: Value, places: Places, item: int) -> Places | None:
        """Places after a movement of one tensor; None where they cannot be told."""
        names = [name for name, argument in call.arguments.items() if argument is value]
        if len(names) == 1 and len(moved_operands(call)) == 1:
            arguments = {n: a for n, a in call.arguments.items() if n != names[0]}
            plain = not any(isinstance(a, Value) for a in arguments.values())
            if plain:
                function = functional(call.func)
                found = viewed(places, lambda a: call_by_name(function, a), arguments, names[0])
                if found is not None:
                    one: Places = found[item] if isinstance(found, list) else found
                    return one
        if places.key is not None or math.prod(places.shape) > MOST_ELEMENTS:
            return None
        tensors = {id(v): torch.full((), -1).expand(v.shape) for v in moved_operands(call)}
        tensors[id(value)] = places.as_numbers()
        moved = run_movement(call, tensors, self._constants)
        return None if moved is None else numbered(moved[item], places.reduced)

    def _joined(self, call: Call, operands: list[Value], item: int) -> State | None:
        """Several tensors put together, all of which hold elements of the entry."""
        tensors, degree = {}, 0.0
        for value in operands:
            if not value.varies:
                tensors[id(value)] = torch.full((), -1).expand(value.shape)
                continue
            state = self.known.get(id(value))
            if state is None or not state.degree or state.places[0].key is not None:
                return None
            if value.labels.numel() > MOST_ELEMENTS:
                return None
            degree = max(degree, state.degree)
            tensors[id(value)] = state.places[0].as_numbers()
        moved = run_movement(call, tensors, self._constants)
        if moved is None:
            return None
        return State(degree, (numbered(moved[item]),))

    def _reduced(self, call: Call) -> State | None:
        """A statistic, if whole axes are reduced."""
        source = next(value for value in call.values() if value.varies)
        state, axes = self._of(source), reduced_axes(call)
        if state is None:
            return None
        if call.name in _ORDERINGS:
            return self._ordered(call, state)
        if axes is None:
            return self._around(call, source, state)
        places = [_without(one, axes, keeps_axes(call)) for one in state.places]
        if any(one is None for one in places):
            return None
        part = ""
        adds = call.name in _TOTALS or 1 in (call.arguments.get("p"), call.arguments.get("ord"))
        if adds and state.part == "exp":
            part = "sum"
        elif call.name == "aten.logsumexp" and state.degree == 1 and not state.part:
            part = "log"
        return State(0, tuple(one for one in places if one is not None), part, state.scale)

    def _ordered(self, call: Call, state: State) -> State | None:
        """Elements in the order of their sizes: one of them is a statistic, as the largest is."""
        axis = call.arguments.get("dim", 0) % max(len(call.shape), 1)
        found = [_without(one, [axis], True) for one in state.places]
        if any(one is None for one in found):
            return None
        places = tuple(one.expanded(call.shape) for one in found if one is not None)
        return State(0, places, "" if call.shape[axis] == 1 else "ordered")

    def _around(self, call: Call, source: Value, state: State) -> State | None:
        """A statistic of the features around each one, as in a local response normalization."""
        axis = _window_over_features(call, source)
        if axis is None or any(one.key is not None for one in state.places):
            return None
        if math.prod(source.shape) > MOST_ELEMENTS:
            return None
        middle = (source.shape[axis] - call.shape[axis] + 1) // 2
        found = [
            numbered(one.as_numbers().narrow(axis, middle, call.shape[axis]), one.reduced)
            for one in state.places
        ]
        return State(0, tuple(found))

    def _over_pieces(self, call: Call, pieces: list[Value]) -> State | None:
        """Tensors that are stacked and reduced again: an elementwise function of them."""
        states = [state for piece in pieces if (state := self._of(piece)) is not None]
        if len(states) < len(pieces):
            return None
        places = self._meeting(states, pieces[0].shape)
        if places is None or any(p.key is not None or p.numbers is not None for p in places):
            return None
        highest = max(state.degree for state in states)
        degree = highest if call.name in _TOTALS or not highest else NONLINEAR
        return State(degree, tuple(_with_ones(p, call.shape) for p in places))

    def _contracted(self, call: Call) -> State | None:
        """A sum over an axis by a product of matrices: of squares, or with equal weights."""
        letters = _letters(call)
        if letters is None:
            return None
        operands, names, out = letters
        found: list[Places] = []
        part, scale = "", CONSTANT.scale
        for value, own in zip(operands, names, strict=True):
            if not value.varies:
                if not self._only_adds(value):
                    return None
                continue
            state = self._of(value)
            if state is None:
                return None
            for places in state.places:
                if places.key is not None or places.numbers is not None:
                    return None
                found.append(_contracted_places(places, own, out, call.shape))
            part, scale = ("sum" if state.part == "exp" else ""), state.scale
        if sum(value.varies for value in operands) > 1:
            part = ""
        return State(0, tuple(dict.fromkeys(found)), part, scale)

    def _only_adds(self, value: Value) -> bool:
        """Whether a constant matrix holds one number only."""
        try:
            tensor = self._constants.of(value)
        except UnknownConstantError:
            return False
        first = tensor.reshape(-1)[:1]
        return bool(tensor.numel()) and bool((tensor == first).all()) and bool(first != 0)

    def _masked(self, call: Call) -> State | None:
        """Elements read or written where a mask says so: they keep their places."""
        mask = _mask_of(call)
        if mask is None or not mask.varies:
            return None
        source = call["self"]
        where = self._of(mask)
        if where is None:
            return None
        states = [s for v in (source, mask) if (s := self._of(v)) is not None and v.varies]
        places = self._meeting(states, source.shape)
        if places is None or len(places) > 1:
            return None
        key = ("masked", _Same(mask), places)
        if call.name in ("aten.index", "aten.masked_select"):
            state = self._of(source)
            if state is None or not state.degree:
                return None
            shape = tuple(call.shape)
            return State(state.degree, (Places(shape, (0,) * len(shape), key=key),))
        written = call["source"] if call.name == "aten.masked_scatter" else call["values"]
        if call.arguments.get("accumulate"):
            return None
        from_there = isinstance(written, Value) and written.varies
        if from_there:
            state = self._of(written)
            if state is None or not state.degree or len(state.places) != 1:
                return None
            own = state.places[0].key
            if not isinstance(own, tuple) or own[:2] != key[:2] or not _agree(own[2], places):
                return None
            places = own[2]
        elif isinstance(written, Value) and written.labels.numel() != 1:
            return None
        return State(NONLINEAR, places) if places else None

    def _restored(self, call: Call) -> State | None:
        """What was added up at indices, read again at the same ones: a statistic of neighbours."""
        if call.name in _ADDS or call.name in _PUTS:
            return self._added_up(call)
        if call.name not in _GATHERS:
            return None
        state, place = self._of(call["self"]), place_of(call)
        if state is None or state.degree or place is None or not state.places:
            return None
        own = state.places[0].key
        if not isinstance(own, tuple) or own[0] != "added" or len(state.places) > 1:
            return None
        _, index, axis, places = own
        if axis != place[1] or _Same(place[0]) != index:
            return None
        return State(0, places, state.part, state.scale)

    def _added_up(self, call: Call) -> State | None:
        place = place_of(call)
        written = call.arguments.get("src", call.arguments.get("source"))
        if call.name in _PUTS:
            written = call["values"] if call["accumulate"] else None
        if place is None or not isinstance(written, Value) or call["self"].varies:
            return None
        state = self._of(written)
        if state is None or not state.places:
            return None
        shape = tuple(call.shape)
        # each element that is read back went into what is read
        key = ("added", _Same(place[0]), place[1], state.places)
        how = call.arguments.get("reduce", "sum")
        part = "sum" if state.part == "exp" and how in ("sum", "mean") else ""
        return State(0, (Places(shape, (0,) * len(shape), key=key),), part, state.scale)


def followed_operands(call: Call) -> list[Value]:
    """The varying operands whose elements a call computes with: not the numbers that say where."""
    where = {id(value) for value in places_of(call) if value.dtype != torch.bool}
    return [value for value in varying_operands(call) if id(value) not in where]


def degree_by_name(call: Call, of: Mapping[str, float]) -> float:
    """Degree of the result of an elementwise call, from those of its arguments."""
    highest = max(of.values(), default=0)
    if highest == 0 or call.name in SAME | SUMS:
        return NONLINEAR if highest and _rounds(call) else highest
    if call.name in _PRODUCTS:
        return highest if sum(d != 0 for d in of.values()) == 1 else NONLINEAR
    if call.name in _QUOTIENTS:
        rounds = call.arguments.get("rounding_mode") is not None
        return NONLINEAR if of["other"] or rounds else highest
    if call.name in ("aten.where", "aten.masked_fill", "aten.lerp"):
        control = {"aten.where": "condition", "aten.masked_fill": "mask", "aten.lerp": "weight"}
        return NONLINEAR if of[control[call.name]] else highest
    if call.name == "aten.addcmul":
        return NONLINEAR if of["tensor1"] and of["tensor2"] else highest
    if call.name == "aten.addcdiv":
        return NONLINEAR if of["tensor2"] else highest
    return NONLINEAR


def _rounds(call: Call) -> bool:
    """Whether real numbers become integers; integers that stay integers lose nothing."""
    output = call.output
    return not (output.is_floating_point() or output.is_complex()) and any(
        value.dtype.is_floating_point for value in call.values()
    )


def _scale(call: Call, states: Mapping[str, State]) -> tuple[Any, ...]:
    """What the elements of an entry are multiplied by after a call."""
    carriers = {n: s for n, s in states.items() if s.degree or s.part}
    if len(carriers) != 1:
        return (1.0, call.node)  # of its own
    ((name, state),) = carriers.items()
    if state.part in ("exp", "sum", "inverse", "log") or call.name in EXPONENTIALS:
        return state.scale
    factor, *others = state.scale
    if call.name in ("aten.neg", "aten.negative"):
        return (-factor, *others)
    if call.name in SUMS:
        second = name == ("self" if call.name == "aten.rsub" else "other")
        sign = -1.0 if second and call.name != "aten.add" else 1.0
        return (factor * sign * (call.arguments.get("alpha", 1) if second else 1), *others)
    if call.name in _PRODUCTS | _QUOTIENTS:
        other = call["other" if name == "self" else "self"]
        if isinstance(other, Value):
            return (factor, *others, call.name, other.node)
        return (factor * other if call.name in _PRODUCTS else factor / other, *others)
    return state.scale if call.name in SAME else (*state.scale, call.node)


def _part(call: Call, states: Mapping[str, State]) -> str:
    """Which part of a softmax the result of an elementwise call is."""
    varying = {name: state for name, state in states.items() if state.places}
    parts = {state.part for state in varying.values()}
    if call.name in EXPONENTIALS and len(varying) == 1:
        (state,) = varying.values()
        if state.part == "shifted":
            return "softmax"
        return "exp" if state.degree == 1 and not state.part else ""
    if call.name == "aten.log" and parts == {"sum"}:
        return "log"
    if call.name == "aten.reciprocal" and parts == {"sum"}:
        return "inverse"
    above, below = states.get("self", CONSTANT), states.get("other", CONSTANT)
    if call.name in _QUOTIENTS and call.arguments.get("rounding_mode") is None:
        if below.part == "sum":
            if above.part == "exp" and above.scale == below.scale:
                return "softmax"
            return "inverse" if not above.places else ""
        return above.part if not below.places and above.part != "shifted" else ""
    if call.name in _PRODUCTS and parts == {"exp", "inverse"}:
        return "softmax" if above.scale == below.scale else ""
    subtracts = call.name in ("aten.sub", "aten.subtract") and call.arguments.get("alpha", 1) == 1
    whole = above.degree == 1 and not above.part and above.scale == below.scale
    if subtracts and whole and below.part == "log":
        return "shifted"
    return _kept_part(call, list(varying.values()))


def _kept_part(call: Call, varying: list[State]) -> str:
    """The part of a softmax that a call keeps: it scales, masks or shifts it."""
    parts = {state.part for state in varying if state.part}
    if len(parts) != 1:
        return ""
    (part,) = parts
    carriers = [state for state in varying if state.part]
    others = [state for state in varying if not state.part]
    if len(carriers) > 1 or any(state.degree for state in others):
        return ""
    if part == "exp" or part == "inverse":
        return part if call.name in SAME | _PRODUCTS | _KEEP_SIGN else ""
    if part == "sum":
        return part if call.name in _KEEP_SUM else ""
    if part == "log":  # of a sum of shifted exponents, which the shift is added to again
        return part if call.name in SAME | SUMS else ""
    return part if call.name in SAME else ""


def stacked_pieces(call: Call, constants: Constants) -> list[Value] | None:
    """The tensors that were put side by side along the one axis that a call reduces, or None."""
    source = call.arguments.get("self")
    if call.name not in _REDUCTIONS or not isinstance(source, Value):
        return None
    axes = reduced_axes(call)
    return None if axes is None or len(axes) != 1 else pieces_along(source, axes[0], constants)


def pieces_along(source: Value, axis: int, constants: Constants) -> list[Value] | None:
    """The tensors that were put side by side along an axis of a tensor, or None.

    They were stacked along it, or put together along another axis and viewed.
    """
    moves, joined = list[Value](), source
    while joined.call is not None and joined.call.name not in JOINS:
        operands = varying_operands(joined.call)
        if kind_of_call(joined.call) != "movement" or len(operands) != 1:
            return None
        moves.insert(0, joined)
        joined = operands[0]
    if joined.call is None or len(joined.call["tensors"]) != source.shape[axis]:
        return None
    places = identity(joined.shape)
    if moves:
        assert moves[-1].call is not None
        state = follow(joined, tuple(moves[:-1]), moves[-1].call, constants)
        if state is None or state.places[0].key is not None or state.places[0].numbers is not None:
            return None
        places = state.places[0]
    pieces: list[Value] = list(joined.call["tensors"])
    slices = [_slice(places, axis, number) for number in range(len(pieces))]
    return pieces if slices == _pieces(joined, pieces) else None


def _slice(places: Places, axis: int, number: int) -> tuple[int, list[tuple[int, int]]]:
    """Offset, and sizes and strides of the axes longer than 1, of one slice along an axis."""
    axes = [
        (n, s)
        for a, (n, s) in enumerate(zip(places.shape, places.strides, strict=True))
        if a != axis and n > 1
    ]
    return places.offset + number * places.strides[axis], _run_together(axes)


def _pieces(joined: Value, pieces: list[Value]) -> list[tuple[int, list[tuple[int, int]]]]:
    """The same of the tensors that were joined."""
    assert joined.call is not None
    axis = joined.call["dim"] % len(joined.shape)
    whole, start, found = identity(joined.shape), 0, []
    for piece in pieces:
        strides = list(whole.strides)
        if joined.call.name == "aten.stack":
            step = strides.pop(axis)
            length = 1
        else:
            step, length = strides[axis], piece.shape[axis]
        axes = [(n, s) for n, s in zip(piece.shape, strides, strict=True) if n > 1]
        found.append((start * step, _run_together(axes)))
        start += length
    return found


def _run_together(axes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sizes and strides of axes, those that run on into each other as one."""
    found: list[tuple[int, int]] = []
    for size, stride in axes:
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return found


def _with_ones(places: Places, shape: torch.Size) -> Places:
    """The same places in a shape that differs in axes of length 1 only."""
    strides = iter([s for n, s in zip(places.shape, places.strides, strict=True) if n > 1])
    along = tuple(next(strides) if size > 1 else 0 for size in shape)
    return replace(places, shape=tuple(shape), strides=along)


def reduced_axes(call: Call) -> list[int] | None:
    """The axes that a reduction reduces as a whole; None where it has windows."""
    source = next(value for value in call.values() if value.varies)
    dimensions = len(source.shape)
    if call.name in _REDUCTIONS:
        dim = call.arguments.get("dim")
        if dim is None or (not isinstance(dim, int) and len(dim) == 0):
            return list(range(dimensions))
        chosen = [dim] if isinstance(dim, int) else list(dim)
        return sorted({axis % dimensions for axis in chosen}) if dimensions else []
    if "pool" in call.name and call.name.startswith("aten."):
        axes = list(range(dimensions - int(call.name.partition("pool")[2][0]), dimensions))
        kernel = call.arguments.get("kernel_size")
        sizes = [source.shape[axis] for axis in axes]
        whole = not kernel or list(kernel) == sizes or (len(kernel) == 1 and {*kernel} == {*sizes})
        return axes if whole and all(call.shape[axis] == 1 for axis in axes) else None
    return None


def _window_over_features(call: Call, source: Value) -> int | None:
    """The one axis, of features, along which a pooling has windows that move step by step."""
    if not call.name.startswith("aten.avg_pool") or any(call["padding"]):
        return None
    dimensions = len(call["kernel_size"])
    moved = call["stride"] or call["kernel_size"]
    wide = [axis for axis, size in enumerate(call["kernel_size"], -dimensions) if size > 1]
    if len(wide) != 1 or any(step != 1 for step in moved):
        return None
    axis = wide[0] + len(source.shape)
    return None if is_position_axis(source.labels, axis) else axis


def keeps_axes(call: Call) -> bool:
    """Whether reduced axes stay, with length 1."""
    if call.name not in _REDUCTIONS:
        return True
    return bool(call.arguments.get("keepdim", call.arguments.get("keepdims", False)))


def _without(places: Places, axes: list[int], keep: bool) -> Places | None:
    """Places of a statistic over some axes."""
    if places.key is not None:
        return None
    if places.numbers is not None:
        return None
    shape, strides, reduced = [], [], list(places.reduced)
    for axis, (size, stride) in enumerate(zip(places.shape, places.strides, strict=True)):
        if axis not in axes:
            shape.append(size)
            strides.append(stride)
            continue
        if size > 1 and stride:
            reduced.append((size, stride))
        if keep:
            shape.append(1)
            strides.append(0)
    return Places(tuple(shape), tuple(strides), places.offset, tuple(sorted(reduced)))


def _repeats(places: Places) -> bool:
    """Whether elements lie side by side that were reduced to the same."""
    axes = zip(places.shape, places.strides, strict=False)
    return not places.strides or any(size > 1 and not stride for size, stride in axes)


def _agree(one: tuple[Places, ...], other: tuple[Places, ...]) -> bool:
    return not other or one == other


def _letters(call: Call) -> tuple[list[Value], list[str], str] | None:
    """The operands of a product of matrices and the letters of their axes, as in einsum."""
    if call.name not in _MATRIX_PRODUCTS:
        return None
    if call.name == "aten.linear":
        if call["bias"] is not None:
            return None
        lead = "".join(chr(65 + n) for n in range(len(call["input"].shape) - 1))
        return [call["input"], call["weight"]], [lead + "k", "jk"], lead + "j"
    one, other = list(call.values())[:2]
    most = max(len(one.shape), len(other.shape)) - 2
    batch = "".join(chr(65 + n) for n in range(max(most, 0)))

    def own(value: Value, last: str, vector: str) -> str:
        if len(value.shape) == 1:
            return vector
        return batch[len(batch) - (len(value.shape) - 2) :] + last

    left, right = own(one, "ik", "k"), own(other, "kj", "k")
    out = batch + ("i" if "i" in left else "") + ("j" if "j" in right else "")
    return [one, other], [left, right], out


def _contracted_places(places: Places, own: str, out: str, shape: torch.Size) -> Places:
    strides = dict(zip(own, places.strides, strict=True))
    sizes = dict(zip(own, places.shape, strict=True))
    reduced = [(sizes[a], strides[a]) for a in own if a not in out and strides[a]]
    along = tuple(
        strides.get(a, 0) if size > 1 and sizes.get(a, 1) == size else 0
        for a, size in zip(out, shape, strict=True)
    )
    return Places(tuple(shape), along, places.offset, tuple(sorted((*places.reduced, *reduced))))


def chosen_from(call: Call) -> Value | None:
    """The tensor from which a call takes, by the same mask, what it writes where a mask says so."""
    mask, written = _mask_of(call), call.arguments.get("values", call.arguments.get("source"))
    if mask is None or not mask.varies or not isinstance(written, Value) or written.call is None:
        return None
    if written.call.name not in ("aten.index", "aten.masked_select"):
        return None
    other = _mask_of(written.call)
    source: Value = written.call["self"]
    same = other is not None and _Same(other) == _Same(mask)
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


def place_of(call: Call) -> tuple[Value, int] | None:
    """The one index of a call that reads or writes at indices, and the axis that it indexes."""
    if "indices" in call.arguments:
        found = [(i, axis) for axis, i in enumerate(call["indices"]) if i is not None]
        return found[0] if len(found) == 1 else None
    index = call.arguments.get("index")
    if not isinstance(index, Value) or call.arguments.get("dim") is None:
        return None
    return index, call["dim"] % max(len(call["self"].shape), 1)


class _Same:
    """A value that is equal to another one if both are computed alike."""

    def __init__(self, value: Value) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        from pathlen.lowering.equal import equal

        return isinstance(other, _Same) and equal(self._value, other._value)

    def __hash__(self) -> int:
        return 0
