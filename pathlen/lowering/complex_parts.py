"""The real and the imaginary part of complex tensors that were built from two real ones."""

from dataclasses import replace

import torch

from pathlen.lowering.constants import Constants
from pathlen.lowering.moving import item_of, moved_operands, run_movement
from pathlen.lowering.operations import aten
from pathlen.lowering.rules import kind_of
from pathlen.lowering.states import COPIES
from pathlen.lowering.values import Call, Value
from pathlen.lowering.written_views import in_shape, selected

Parts = tuple[Value | None, Value | None]
_CONJUGATES = frozenset(aten("conj _conj conj_physical _conj_physical"))
_COPIES = COPIES | frozenset(aten("resolve_conj resolve_neg"))
_TIMES = frozenset(aten("mul multiply"))


def parts_of(value: Value, constants: Constants) -> Parts | None:
    """The real and the imaginary part of a tensor, None for a part that is 0.

    Returns:
        None where it was not built from two parts, or where these were mixed since.
    """
    if not value.dtype.is_complex:
        return value, None
    call = value.call
    if call is None or not isinstance(call.func, torch._ops.OpOverload):  # put together in memory
        return None
    if call.name == "aten.complex":
        return in_shape(call, call["real"], call.shape), in_shape(call, call["imag"], call.shape)
    if call.name == "aten.view_as_complex":
        return selected(call, call["self"], -1, 0), selected(call, call["self"], -1, 1)
    if call.name in _TIMES:
        return _times(call, constants)
    if call.name in ("aten.add", "aten.sub"):
        return _sum(call, constants)
    sources = [operand for operand in moved_operands(call) if operand.varies]
    found = parts_of(sources[0], constants) if len(sources) == 1 else None
    if found is None or call.name in _COPIES or call.name in _CONJUGATES:
        return found
    if kind_of(value) == "movement":
        one, other = (_moved(part, sources[0], value, constants) for part in found)
        lost = (found[0] is not None and one is None) or (found[1] is not None and other is None)
        return None if lost else (one, other)
    return None


def _times(call: Call, constants: Constants) -> Parts | None:
    """A tensor times a real or an imaginary number."""
    number = call["other" if isinstance(call["self"], Value) and call["self"].varies else "self"]
    if isinstance(number, Value):
        number = None if number.varies else constants.one_number(number)
    varying = [operand for operand in call.values() if operand.varies]
    found = parts_of(varying[0], constants) if len(varying) == 1 else None
    if number is None or found is None:
        return None
    number = complex(number)
    if number.imag and number.real:
        return None
    return found[::-1] if number.imag else found


def _sum(call: Call, constants: Constants) -> Parts | None:
    """A sum of tensors of which one has the real and one the imaginary part."""
    total: list[Value | None] = [None, None]
    for operand in (call["self"], call["other"]):
        if isinstance(operand, Value):
            found = parts_of(operand, constants)
            if found is None:
                return None
            for n, part in enumerate(found):
                if part is not None and total[n] is not None:
                    return None
                total[n] = total[n] or part
    one, other = (None if p is None else in_shape(call, p, call.shape) for p in total)
    return one, other


def _moved(part: Value | None, source: Value, value: Value, constants: Constants) -> Value | None:
    """A part after the movement that made a value of the whole."""
    if part is None or value.call is None:
        return None
    moved = run_movement(value.call, {id(source): part.labels}, constants)
    if moved is None:
        return None
    call = value.call
    arguments = call.replace_values(lambda one: part if one is source else one)
    like = torch.empty(value.shape, dtype=part.dtype, device="meta")
    call = replace(call, arguments=arguments, like=like)
    return value.changed(labels=moved[item_of(value) or 0], dtype=part.dtype, call=call, _path=None)
