"""Follows the elements of a tensor through a region of calls: which meet, and what becomes of them.

Each value between an entry and a call gets a state: of what degree it is in the elements of the
entry, statistics held fixed, and where in the entry its elements come from. Elements that meet must
come from the same place; a statistic must be broadcast back over what was reduced to it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from pathlen.lowering.along import along
from pathlen.lowering.constants import Constants
from pathlen.lowering.contracted import contracted
from pathlen.lowering.lookups import (
    chooser_of,
    choosing,
    is_chosen_from,
    number_of_choices,
    places_as_chosen,
)
from pathlen.lowering.masks import mask_of, masked
from pathlen.lowering.moving import before_moves, item_of, moved_operands, places_of
from pathlen.lowering.neighbours import restored
from pathlen.lowering.places import Places, identity
from pathlen.lowering.placing import joined_places, moved_places
from pathlen.lowering.ranks import by_rank, read_by_rank, written_by_rank
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.softmax_parts import part_of, scale_of
from pathlen.lowering.stacks import over_pieces, stack_of
from pathlen.lowering.states import CONSTANT, NONLINEAR, State, degree_by_name, meeting
from pathlen.lowering.statistics import (
    in_pieces,
    is_broadcast_back,
    joins_as,
    last_of_cumulated,
    reduced,
)
from pathlen.lowering.values import Call, Value, varying_operands


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
        part = {"exp": "exp", "log": "shifted"}.get(entry.softmax, "")
        self.known: dict[int, State | None] = {id(entry): State(1, (identity(entry.shape),), part)}
        self._constants, self._entry = constants, entry
        self._has_pieces = False

    def add(self, value: Value) -> None:
        """Find the state of a value, whose operands have theirs."""
        assert value.call is not None
        item = item_of(value)
        state = None if item is None else self.state_of_call(value.call, item)
        if state is not None and value.softmax in ("log", "whole"):
            held = value.softmax == "whole"
            state = replace(state, degree=0, part="") if held else replace(state, part="shifted")
        if state is not None and value.layer and any(one.repeats() for one in state.places):
            state = None  # several linear functions, which are no statistics
        self.known[id(value)] = state

    def state_of_call(self, call: Call, item: int) -> State | None:
        """The state of a result of a call."""
        stack = stack_of(call, self._constants)
        found = None if stack is None else over_pieces(call, stack.pieces, self._of)
        if found is not None:
            return found
        whole = last_of_cumulated(call, item, self._of, self._constants)
        if whole is not None:
            return self._last(call, whole, item)
        states = [self._of(value) for value in followed_operands(call)]
        if any(state is None for state in states):
            return None
        order = written_by_rank(call)
        if order is not None:
            return by_rank(call, order, self._of, self._constants)
        if chooser_of(call) is not None:
            return self._chosen(call, item)
        kind = kind_of_call(call)
        if kind in ("reduction", "softmax"):
            found = along(call, self._of, self._entry)
            if found is not None:
                return found
        if mask_of(call) is not None:
            found = masked(call, self._of, self._constants)
            if found is not None or call.name == "aten.masked_scatter":
                return found
        if kind == "elementwise":
            return self._elementwise(call)
        if kind in ("normalization", "softmax"):
            return self._normalized(call, kind)
        if kind == "movement":
            return self._moved(call, item)
        if kind == "reduction":
            return reduced(call, self._of, self._entry)
        if kind in ("contraction", "layer"):
            return contracted(call, self._of, self._entry, self._constants)
        return None

    def is_broadcast_back(self, last: Call, result: State) -> bool:
        """Whether all positions meet what a call, and what moves before it, meet as statistics.

        What was added up along some of the positions is cumulated, and no statistic.
        """
        calls, seen = [last] if self._has_pieces else [], set[int]()
        while calls:
            for value in varying_operands(calls.pop()):
                state = self._of(value)
                if state is None or id(value) in seen:
                    continue
                seen.add(id(value))
                if state.degree and value.call is not None and value is not self._entry:
                    calls.append(value.call)
                back = (is_broadcast_back(p, result.places[0], self._entry) for p in state.places)
                if not state.degree and not all(back):
                    return False
        return True

    def _of(self, argument: Any) -> State | None:
        if not isinstance(argument, Value) or not argument.varies:
            return CONSTANT
        return self.known.get(id(argument))

    def _elementwise(self, call: Call) -> State | None:
        named = {name: self._of(argument) for name, argument in call.arguments.items()}
        states = {n: s for n, s in named.items() if s is not None}
        places = meeting(list(states.values()), call.shape)
        if places is None:
            self._has_pieces = True
            return in_pieces(call, states, self._entry)
        if any(self._meets_a_part(call, call[n], s, places) for n, s in states.items()):
            return None
        degree = degree_by_name(call, {name: state.degree for name, state in states.items()})
        return State(degree, places, part_of(call, states), scale_of(call, states))

    def _chosen(self, call: Call, item: int) -> State | None:
        """Elements that integers choose: a function of what these are functions of."""
        own, count = self._of(chooser_of(call)), number_of_choices(call)
        if own is None or not own.degree or len(own.places) != 1 or count is None:
            return None
        places = places_as_chosen(call, own.places[0])
        if places is None:
            return None
        states: list[State | None] = [State(NONLINEAR, (places,))]
        if is_chosen_from(call):
            states += [self._moved(choosing(call, number), item) for number in range(count)]
        known = [state for state in states if state is not None]
        met = meeting(known, call.shape) if len(known) == len(states) else None
        return None if met is None else State(NONLINEAR, met)

    def _meets_a_part(
        self, call: Call, value: Any, state: State, places: tuple[Places, ...]
    ) -> bool:
        """Whether a sum of several elements is added to some of them: flat, it is no statistic."""
        if state.degree or not state.places or not joins_as(call, value):
            return False
        return sum(one.count() for one in places) < max(one.count() for one in state.places)

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
        back = restored(call, self._of)
        if back is not None:
            return back
        if any(value.varies for value in places_of(call)):
            return None
        operands = moved_operands(call)
        varying = [v for v in operands if v.varies]
        states = [self.known.get(id(v)) for v in varying]
        if len(varying) == 1 and states[0] is not None:
            moved = [
                moved_places(call, varying[0], p, item, self._constants) for p in states[0].places
            ]
            if any(p is None for p in moved):
                return None
            part = states[0].part if "log" not in states[0].part or not states[0].degree else ""
            return replace(states[0], places=tuple(p for p in moved if p is not None), part=part)
        return self._joined(call, operands, item)

    def _last(self, call: Call, whole: Call, item: int) -> State | None:
        """The last of cumulated elements, moved: the reduction of all."""
        state, (source,) = reduced(whole, self._of, self._entry), varying_operands(call)
        if state is None:
            return None
        places = [
            moved_places(call, source, p.expanded(source.shape), item, self._constants)
            for p in state.places
        ]
        known = tuple(p for p in places if p is not None)
        return replace(state, places=known) if len(known) == len(places) else None

    def _joined(self, call: Call, operands: Sequence[Value], item: int) -> State | None:
        """Several tensors put together, all of which hold elements of the entry, or statistics."""
        places, states = {}, list[State]()
        for value in operands:
            if not value.varies:
                continue
            state = self.known.get(id(value))
            if state is None or len(state.places) != 1 or state.places[0].key is not None:
                return None
            states.append(state)
            places[id(value)] = state.places[0]
        if not states:
            return CONSTANT  # a constant that was broadcast beside what varies
        whole = {id(before_moves(value)) for value in operands if value.varies}
        if not all(state.degree for state in states) and len(whole) > 1:
            return None  # several statistics, as the features of a linear map are
        joined = joined_places(call, places, item, self._constants)
        if joined is None:
            return None
        return State(max(state.degree for state in states), (joined,))


def followed_operands(call: Call) -> list[Value]:
    """The varying operands whose elements a call computes with: not the numbers that say where."""
    order = written_by_rank(call)
    if order is not None:
        return read_by_rank(call, order)
    if call.name == "aten.copy":  # whatever was there before
        return [value for value in moved_operands(call) if value.varies]
    where = {id(value) for value in places_of(call) if value.dtype != torch.bool}
    followed = [value for value in varying_operands(call) if id(value) not in where]
    mask = (mask_of(call) or chooser_of(call)) if where else None
    if mask is None or not mask.varies or mask in followed:
        return followed
    return [*followed, mask]
