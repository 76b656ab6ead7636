"""Sums and largest values of rows of 32 residues, one a prime."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pathlen.backends._residues_primes import LANES
from pathlen.backends._rows import PickedRows, Row, check_rows

_RESIDUES = ir.VectorType(ir.IntType(32), LANES)


@intrinsic
def sum_modulo(  # type: ignore[no-untyped-def]
    typing_context, state, indices, first, last, primes, total
):
    """Store the sum of the rows state[indices[first:last]], modulo primes below 2**31.

    Args:
        typing_context: Numba's.
        state: uint32[n, 32].
        indices: int[e].
        first: Edge.
        last: The edge after the last one.
        primes: uint32[32].
        total: uint32[32], where the sum is written to.
    """
    check_rows(state, indices, types.uint32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        modulus = builder.load(_vector(context, builder, signature, arguments, 4), align=4)

        def add(sums: Row, row: Any) -> Row:
            # Below 2**32; what is below 0 wraps round to what is larger.
            whole = builder.add(sums[0], row)
            return [_extreme(builder, "umin", whole, builder.sub(whole, modulus))]

        _fold(context, builder, signature, arguments, add)
        return context.get_dummy_value()

    return types.void(state, indices, first, last, primes, total), generate


@intrinsic
def largest_of_rows(  # type: ignore[no-untyped-def]
    typing_context, state, indices, first, last, total
):
    """Store the largest of the rows state[indices[first:last]] in each place, 0 if there is none.

    Arguments are those of `sum_modulo`.
    """
    check_rows(state, indices, types.uint32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def larger(largest: Row, row: Any) -> Row:
            return [_extreme(builder, "umax", largest[0], row)]

        _fold(context, builder, signature, arguments, larger)
        return context.get_dummy_value()

    return types.void(state, indices, first, last, total), generate


def _fold(context: Any, builder: Any, signature: Any, arguments: Any, combine: Any) -> None:
    """Combine rows with zeros, and store what comes out in the last argument."""
    rows = PickedRows(context, builder, signature.args[:4], arguments[:4], _RESIDUES)
    zeros = ir.Constant(_RESIDUES, [0] * LANES)
    _, [[found]] = rows.fold(rows.first, [[zeros]], combine)
    builder.store(found, _vector(context, builder, signature, arguments, -1), align=4)


def _vector(context: Any, builder: Any, signature: Any, arguments: Any, which: int) -> Any:
    """Address of one of the arguments, an array of 32."""
    array = context.make_array(signature.args[which])(context, builder, arguments[which])
    return builder.bitcast(array.data, ir.PointerType(_RESIDUES))


def _extreme(builder: Any, name: str, one: Any, other: Any) -> Any:
    """The smaller ("umin") or the larger ("umax") in each place."""
    kind = ir.FunctionType(_RESIDUES, [_RESIDUES, _RESIDUES])
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, f"llvm.{name}.v{LANES}i32"
    )
    return builder.call(function, [one, other])
