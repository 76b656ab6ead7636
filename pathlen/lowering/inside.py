"""Which tensors nothing reads but sums and products that end in one call."""

import heapq
from collections.abc import Mapping
from typing import Any

from pathlen.lowering.rules import kind_of
from pathlen.lowering.values import Call, Value, varying_operands
from pathlen.lowering.waiting import is_waiting_sum

_MOST_CALLS = 1024
_MOST_NESTED = 2


def inside(call: Call, operands: list[Value], readers: Mapping[int, int]) -> frozenset[int]:
    """Ids of the tensors that no call reads but sums and products that end in one call.

    Goes back from the last call, latest tensor first, so that all readers of a tensor are known
    when it is looked at; no further than 1024 tensors, and two sums within products of each other.
    """
    reads: dict[int, set[Any]] = {id(value): {call.node} for value in operands}
    depths: dict[int, tuple[int, bool]] = {id(value): (0, False) for value in operands}
    heap = [(-value.order, id(value), value) for value in {id(v): v for v in operands}.values()]
    heapq.heapify(heap)
    found = set[int]()
    while heap and len(found) < _MOST_CALLS:
        _, name, value = heapq.heappop(heap)
        outside = len(reads[name]) < readers.get(id(value.node), 0)
        if value.call is None or (outside and value.node not in reads[name]):
            continue
        depth, in_product = depths[name]
        if is_waiting_sum(value) or value.operator == "sum":
            depth, in_product = depth + in_product, False
        elif value.operator == "product":
            in_product = True
        elif not _is_passed(value):
            continue
        if depth > _MOST_NESTED:
            continue
        found.add(name)
        for operand in operands_of(value):
            if id(operand) not in reads:
                heapq.heappush(heap, (-operand.order, id(operand), operand))
            reads.setdefault(id(operand), set()).add(value.call.node)
            before = depths.get(id(operand), (depth, in_product))
            depths[id(operand)] = min(before, (depth, in_product))
    return frozenset(found)


def operands_of(value: Value) -> list[Value]:
    """What a sum or a product is of: the operands of its call, or its parts in any other call."""
    assert value.call is not None
    varying = varying_operands(value.call)
    of_parts = (
        not is_waiting_sum(value)
        and value.parts
        and (kind_of(value) != "elementwise" or not all(one.is_path for one in varying))
    )
    return [*value.parts] if of_parts else varying


def _is_passed(value: Value) -> bool:
    """Whether a tensor is another one, moved or scaled."""
    if value.function is not None or value.call is None:
        return False
    return kind_of(value) in ("movement", "elementwise") and not value.merge
