"""Places of elements by tables: the same as running each movement on the numbers themselves."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from torch import fx

from pathlen.lowering.constants import Constants
from pathlen.lowering.places import MOST_ELEMENTS, Places, identity, numbered
from pathlen.lowering.placing import joined_places, moved_places
from pathlen.lowering.tables import Tables
from pathlen.lowering.values import Value, bind_call

aten = torch.ops.aten
GRAPH = fx.Graph()


def value(like: torch.Tensor, *, varies: bool = True) -> Value:
    node = GRAPH.placeholder("x")
    node.meta["val"] = like
    return Value(torch.zeros((), dtype=torch.int64).expand(like.shape), torch.float32, varies, node)


def moved(
    func: Any, pieces: list[torch.Tensor], places: list[Places | None], *args: Any
) -> tuple[list[torch.Tensor], list[Places | None]]:
    """The results of a movement of one tensor, or of a list, and their places; None: constants."""
    of_many = func in (aten.cat.default, aten.stack.default)
    expected = func(pieces if of_many else pieces[0], *args)
    values = [value(p, varies=w is not None) for p, w in zip(pieces, places, strict=True)]
    node = GRAPH.placeholder("y")
    node.meta["val"] = expected
    constants = Constants()
    given_args = [value(a, varies=False) if isinstance(a, torch.Tensor) else a for a in args]
    call = bind_call(func, (values if of_many else values[0], *given_args), {}, node)
    if func is aten.index_select.default:
        index = GRAPH.get_attr("index")
        index.meta["val"] = args[1]
        given_args[1] = Value(torch.full(args[1].shape, -1), torch.int64, False, index)
        call = bind_call(func, (values[0], *given_args), {}, node)
        constants.add(GRAPH, {"index": args[1]}, {})
    results = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    found: list[Places | None]
    if of_many:
        own = {id(v): w for v, w in zip(values, places, strict=True) if w is not None}
        found = [joined_places(call, own, 0, constants)]
    else:
        assert places[0] is not None
        found = [
            moved_places(call, values[0], places[0], item, constants)
            for item in range(len(results))
        ]
    return results, found


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


@st.composite
def one_step(draw: st.DrawFn, tensor: torch.Tensor) -> tuple[Any, list[Any], list[torch.Tensor]]:
    """An operator, its arguments, and what it is applied to beside the tensor."""
    axis = draw(st.integers(0, tensor.ndim - 1))
    size = tensor.shape[axis]
    kinds = "permute split_axis flatten slice flip roll select_some expand cat stack cat_slices"
    kind = draw(st.sampled_from(kinds.split()))
    shape = list(tensor.shape)
    if kind == "permute":
        return aten.permute.default, [draw(st.permutations(range(tensor.ndim)))], []
    if kind == "split_axis":
        first = draw(st.sampled_from(divisors(size)))
        sizes = [*shape[:axis], first, size // first, *shape[axis + 1 :]]
        return aten.reshape.default, [sizes], []
    if kind == "flatten":
        last = draw(st.integers(axis, tensor.ndim - 1))
        return aten.flatten.using_ints, [axis, last], []
    if kind == "slice":
        start = draw(st.integers(0, size - 1))
        return aten.slice.Tensor, [axis, start, size, draw(st.integers(1, 3))], []
    if kind == "flip":
        return aten.flip.default, [[axis]], []
    if kind == "roll":
        return aten.roll.default, [[draw(st.integers(-3, 3))], [axis]], []
    if kind == "select_some":
        some = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5))
        return aten.index_select.default, [axis, torch.tensor(some)], []
    if kind == "expand":
        return aten.expand.default, [[draw(st.integers(1, 2)), *shape]], []
    func = aten.stack.default if kind == "stack" else aten.cat.default
    other = draw(st.sampled_from([tensor, torch.full_like(tensor, -1)]))
    return func, [axis], [other]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_chains_of_movements_are_those_of_the_numbers(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    whole = identity(shape)
    tensor, places = whole.as_numbers().contiguous(), whole
    for _ in range(data.draw(st.integers(1, 6))):
        if not tensor.ndim or tensor.numel() > 2000 or not tensor.numel():
            break
        func, args, others = data.draw(one_step(tensor))
        if data.draw(st.booleans()) and others:  # two slices of the same tensor, swapped
            half = max(tensor.shape[args[0]] // 2, 1)
            slices, where = [], []
            for start in (half, 0):
                own = [args[0], start, start + half, 1]
                (piece,), (place,) = moved(aten.slice.Tensor, [tensor], [places], *own)
                slices.append(piece)
                where.append(place)
            if len({piece.shape for piece in slices}) > 1 or not slices[0].numel():
                continue
            (tensor,), (found,) = moved(func, slices, where, *args)
        else:
            is_constant = [bool((other == -1).all()) and other is not tensor for other in others]
            pieces = [None if constant else places for constant in is_constant]
            (tensor,), (found,) = moved(func, [tensor, *others], [places, *pieces], *args)
        assert found is not None
        places = found
        assert places.as_numbers().equal(tensor)
        assert places == numbered(tensor), "equal places are written alike"
        assert (tensor >= 0).all() or places.numbers is not None
        assert places.shape == tuple(tensor.shape)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_tables_answer_as_elements_do(data: st.DataObject) -> None:
    """What is asked of places, against the same places written down element by element."""
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    numbers = torch.full((), 4)
    for axis, size in enumerate(sizes):
        step = data.draw(st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=size, max_size=size))
        numbers = numbers + torch.tensor(step).view(
            [-1 if a == axis else 1 for a in range(len(sizes))]
        )
    reduced = data.draw(st.sampled_from([(), ((2, 1),), ((3, 2),)]))
    one = numbered(numbers, reduced)
    plain = Places(tuple(sizes), (), 0, reduced, numbers.contiguous().numpy().tobytes())
    other = numbered(numbers + data.draw(st.sampled_from([0, 1, 2])))
    assert one.count() == plain.count() or one.numbers is None
    longer = [2, *sizes]
    assert one.expanded(longer).as_numbers().equal(plain.expanded(longer).as_numbers())
    if isinstance(one.numbers, Tables):
        assert one.includes(other) == plain.includes(other)
        for axis in range(len(sizes)):
            own, known = one.repeats_along(axis), plain.repeats_along(axis)
            assert (own is None) == (known is None)
            assert own is None or known is None or own.expand(sizes).equal(known)


def test_swapped_halves_of_a_large_tensor() -> None:
    """Rotary embeddings at a length at which no number of an element could be written down."""
    shape = (1, 64, 1 << 15, 128)
    whole = torch.empty(shape, device="meta")
    assert whole.numel() > MOST_ELEMENTS
    places = identity(shape)
    (first, second), halves = moved(aten.chunk.default, [whole], [places], 2, -1)
    (both,), (swapped,) = moved(aten.cat.default, [second, first], halves[::-1], -1)
    assert swapped is not None
    assert swapped.expanded(shape) != places
    (first, second), halves = moved(aten.chunk.default, [both], [swapped], 2, -1)
    _, (back,) = moved(aten.cat.default, [second, first], halves[::-1], -1)
    assert back == places


def test_pairs_beside_each_other_of_a_large_tensor() -> None:
    shape = (1, 1 << 15, 64, 128)
    whole, places = torch.empty(shape, device="meta"), identity(shape)
    (odd,), of_odd = moved(aten.slice.Tensor, [whole], [places], -1, 1, 128, 2)
    (even,), of_even = moved(aten.slice.Tensor, [whole], [places], -1, 0, 128, 2)
    (stacked,), pairs = moved(aten.stack.default, [even, odd], [*of_even, *of_odd], -1)
    _, (back,) = moved(aten.reshape.default, [stacked], pairs, shape)
    assert back == places
    (stacked,), pairs = moved(aten.stack.default, [odd, even], [*of_odd, *of_even], -1)
    _, (turned,) = moved(aten.reshape.default, [stacked], pairs, shape)
    assert turned is not None
    assert turned != places
