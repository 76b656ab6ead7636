"""Rows of a matrix that indices pick, read and written in vector registers, for compiled sweeps.

Compilers make no vector instructions of a loop over edges that adds rows to a row: as far as they
know, what is written may be what is read next. Here the sum is a value of a vector type of LLVM,
which stays in registers. LLVM splits such a type into whatever vectors the processor has.

Rows of neighbours lie anywhere in memory. The order is known from the indices long before, but
so much arithmetic stands between two reads that the processor looks only a few reads ahead by
itself. So each round also asks for a row of many edges later (the prefetch instruction).
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import NumbaTypeError
from numba.extending import intrinsic

Row = list[Any]
"""LLVM vectors: a row of a matrix, or what rows are combined to."""

AHEAD = 64  # edges, where rows are read from the first to the last
BEHIND = 128  # edges, where rows are changed from the last to the first
_FOUR_FLOATS = ir.VectorType(ir.DoubleType(), 4)
_TWO_FLOATS = ir.VectorType(ir.DoubleType(), 2)
_INTEGER = ir.IntType(32)


class PickedRows:
    """Writes code that combines the rows of a matrix which a part of an array of indices names.

    Attributes:
        builder: Where the code is written to.
        first: The edge (position in the indices) where the part begins.
    """

    def __init__(
        self,
        context: Any,
        builder: Any,
        kinds: Sequence[Any],
        values: Sequence[Any],
        row: Any,
    ) -> None:
        """Take the matrix, the indices, the first edge and the one after the last.

        Args:
            context: Of the compilation.
            builder: Where the code is written to.
            kinds: Numba's types of the four.
            values: Their values.
            row: LLVM's type of vector that a row of the matrix is.
        """
        matrix, indices = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(kinds[:2], values[:2], strict=True)
        )
        self.builder = builder
        self.first, self._last = (
            context.cast(builder, value, kind, types.intp)
            for kind, value in zip(kinds[2:], values[2:], strict=True)
        )
        self._rows = builder.bitcast(matrix.data, ir.PointerType(row))
        self._indices = indices.data
        length = cgutils.unpack_tuple(builder, indices.shape)[0]  # type: ignore[no-untyped-call]
        left = builder.sub(length, self._last)
        far = left.type(AHEAD)
        self._ahead = builder.select(builder.icmp_signed("<", left, far), left, far)
        self._position = context.get_value_type(types.intp)
        self._to_position: Callable[[Any], Any] = lambda index: context.cast(
            builder, index, kinds[1].dtype, types.intp
        )

    def fold(
        self,
        edge: Any,
        totals: Sequence[Row],
        combine: Callable[[Row, Any], Row],
        spared: int = 0,
    ) -> tuple[Any, list[Row]]:
        """Combine each total with a row, the rows in order, while there is a row for each.

        Args:
            edge: Where to begin.
            totals: What rows are combined with.
            combine: Writes code for one of them and a row.
            spared: How many rows to leave at least.

        Returns:
            The first edge that is left, and the totals.
        """
        builder, before, step = self.builder, self.builder.block, len(totals)
        head, body, after = (
            builder.append_basic_block(f"rows_{x}") for x in ("head", "body", "end")
        )
        builder.branch(head)
        builder.position_at_end(head)
        at, sums = self._phi(edge, before), [[self._phi(x, before) for x in row] for row in totals]
        following = self._plus(at, step)
        needed = self._plus(following, spared)
        builder.cbranch(builder.icmp_signed("<=", needed, self._last), body, after)
        builder.position_at_end(body)
        ahead = builder.add(at, self._ahead)
        for place in range(step):
            _prefetch(builder, self._address(self._plus(ahead, place)), written=False)
        for place, row in enumerate(sums):
            found = combine(row, self._row(self._plus(at, place)))
            for phi, value in zip(row, found, strict=True):
                phi.add_incoming(value, builder.block)
        at.add_incoming(following, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return at, sums

    def _row(self, edge: Any) -> Any:
        """The row that an edge comes from."""
        vector = self.builder.load(self._address(edge))
        vector.align = 4  # numpy promises that of elements, not of rows
        return vector

    def _address(self, edge: Any) -> Any:
        index = self.builder.load(self.builder.gep(self._indices, [edge]))
        return self.builder.gep(self._rows, [self._to_position(index)])

    def _plus(self, edge: Any, count: int) -> Any:
        return self.builder.add(edge, self._position(count))

    def _phi(self, value: Any, block: Any) -> Any:
        """What is `value` when the loop is entered from a block."""
        phi = self.builder.phi(value.type)
        phi.add_incoming(value, block)
        return phi


def check_rows(matrix: Any, indices: Any, dtype: Any) -> None:
    """Raise NumbaTypeError where such code would read something else than what stands there."""
    for array, dimensions in ((matrix, 2), (indices, 1)):
        fits = isinstance(array, types.Array) and array.layout == "C" and array.ndim == dimensions
        if not fits:
            raise NumbaTypeError(f"needs a C-contiguous array of {dimensions} dimensions: {array}")
    if matrix.dtype != dtype:
        raise NumbaTypeError(f"needs a matrix of {dtype}: {matrix}")


@intrinsic
def sum_and_largest(typing_context, state, indices, first, last):  # type: ignore[no-untyped-def]
    """Of the rows state[indices[first:last]] of float64[n, 4]: two sums and two largest values.

    A row holds the high and the low part of a number, and two values of which the largest is
    sought. The last one to four high parts are added by two-sum: the rounding errors of their sum
    are in the sum of low parts. The rows before are dealt out to four plain sums, which are added
    up first.
    """
    check_rows(state, indices, types.float64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = PickedRows(context, builder, signature.args, arguments, _FOUR_FLOATS)

        def plain(total: Row, row: Any) -> Row:
            return [builder.fadd(total[0], row), _larger(builder, total[1], row)]

        def exact(total: Row, row: Any) -> Row:
            whole, error = _two_sum(builder, total[0], row)
            places = ir.Constant(ir.VectorType(_INTEGER, 4), [4, 0, 4, 4])
            moved = builder.shuffle_vector(error, zero, places)
            return [builder.fadd(whole, moved), _larger(builder, total[1], row)]

        def joined(total: Row, other: Row) -> Row:
            return [builder.fadd(total[0], other[0]), _larger(builder, total[1], other[1])]

        zero = ir.Constant(_FOUR_FLOATS, [0.0] * 4)
        least = ir.Constant(_FOUR_FLOATS, [float("-inf")] * 4)
        edge, (one, two, three, four) = rows.fold(rows.first, [[zero, least]] * 4, plain, spared=1)
        total = joined(joined(one, two), joined(three, four))
        _, [(sums, largest)] = rows.fold(edge, [total], exact)
        found = [builder.extract_element(sums, _INTEGER(place)) for place in (0, 1)]
        found += [builder.extract_element(largest, _INTEGER(place)) for place in (2, 3)]
        return cgutils.pack_array(builder, found)  # type: ignore[no-untyped-call]

    four = types.UniTuple(types.float64, 4)  # type: ignore[no-untyped-call]
    return four(state, indices, first, last), generate


@intrinsic
def add_to_row(typing_context, state, row, high, other_high, low, other_low):  # type: ignore[no-untyped-def]
    """Add two numbers, each a high and a low part, to those of a row of float64[n, 4].

    A row holds two high parts, then two low ones, to which the rounding errors of the high ones
    are added (two-sum).
    """
    check_rows(state, types.int64[::1], types.float64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _row_of_matrix(context, builder, signature, arguments, _TWO_FLOATS, 2)
        low_address = builder.gep(address, [_INTEGER(1)])
        highs, lows = builder.load(address), builder.load(low_address)
        highs.align = lows.align = 8
        terms = [_vector(builder, *pair) for pair in (arguments[2:4], arguments[4:6])]
        whole, error = _two_sum(builder, highs, terms[0])
        builder.store(whole, address, align=8)
        rest = builder.fadd(builder.fadd(lows, terms[1]), error)
        builder.store(rest, low_address, align=8)
        return context.get_dummy_value()

    real = types.float64
    return types.void(state, types.uint64, real, real, real, real), generate


@intrinsic
def ask_for_row(typing_context, state, row):  # type: ignore[no-untyped-def]
    """Have the processor fetch a row of float64[n, 4], to be changed soon."""
    check_rows(state, types.int64[::1], types.float64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _row_of_matrix(context, builder, signature, arguments, _FOUR_FLOATS, 1)
        _prefetch(builder, address, written=True)
        return context.get_dummy_value()

    return types.void(state, types.uint64), generate


def _row_of_matrix(
    context: Any, builder: Any, signature: Any, arguments: Any, vector: Any, vectors: int
) -> Any:
    """Address of a row of so many vectors: the second argument counts rows of the first."""
    matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
    start = builder.bitcast(matrix.data, ir.PointerType(vector))
    return builder.gep(start, [builder.mul(arguments[1], arguments[1].type(vectors))])


def _vector(builder: Any, *values: Any) -> Any:
    """A vector of two floats."""
    vector = ir.Constant(_TWO_FLOATS, ir.Undefined)
    for place, value in enumerate(values):
        vector = builder.insert_element(vector, value, _INTEGER(place))
    return vector


def _two_sum(builder: Any, one: Any, other: Any) -> tuple[Any, Any]:
    """One + other, and the rounding error of that (Knuth, TAOCP 2, 4.2.2)."""
    whole = builder.fadd(one, other)
    part = builder.fsub(whole, one)
    of_one = builder.fsub(one, builder.fsub(whole, part))
    return whole, builder.fadd(of_one, builder.fsub(other, part))


def _larger(builder: Any, one: Any, other: Any) -> Any:
    """The larger of two in each place."""
    return builder.select(builder.fcmp_ordered(">", other, one), other, one)


def _prefetch(builder: Any, address: Any, *, written: bool) -> None:
    """Have the processor fetch a cache line of data into all caches, to be read or written."""
    byte = ir.PointerType(ir.IntType(8))
    kind = ir.FunctionType(ir.VoidType(), [byte, _INTEGER, _INTEGER, _INTEGER])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
    manner = [_INTEGER(int(written)), _INTEGER(3), _INTEGER(1)]
    builder.call(function, [builder.bitcast(address, byte), *manner])
