"""Rows of a matrix that indices pick, combined in vector registers, for compiled sweeps.

Compilers make no vector instructions of a loop over edges that adds rows to a row: as far as they
know, what is written may be what is read next. Here the sum is a value of a vector type of LLVM,
which stays in registers. LLVM splits such a type into whatever vectors the processor has.

Rows of predecessors lie anywhere in memory. The order is known from the indices long before, but
so much arithmetic stands between two reads that the processor looks only a few reads ahead by
itself. So each round also asks for the rows of `AHEAD` edges later (the prefetch instruction).
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

AHEAD = 32  # edges
_FOUR_FLOATS = ir.VectorType(ir.DoubleType(), 4)
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
        row: Sequence[Any],
    ) -> None:
        """Take the matrix, the indices, the first edge and the one after the last.

        Args:
            context: Of the compilation.
            builder: Where the code is written to.
            kinds: Numba's types of the four.
            values: Their values.
            row: LLVM's types of vectors that a row of the matrix consists of.
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
        self._rows = builder.bitcast(matrix.data, ir.PointerType(ir.LiteralStructType(row)))
        self._places = range(len(row))
        self._indices = indices.data
        self._length = cgutils.unpack_tuple(builder, indices.shape)[0]  # type: ignore[no-untyped-call]
        self._position = context.get_value_type(types.intp)
        self._to_position: Callable[[Any], Any] = lambda index: context.cast(
            builder, index, kinds[1].dtype, types.intp
        )

    def fold(
        self,
        edge: Any,
        totals: Sequence[Row],
        combine: Callable[[Row, Row], Row],
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
        self._prefetch(self._plus(at, AHEAD), step)
        for place, row in enumerate(sums):
            found = combine(row, self._row(self._plus(at, place)))
            for phi, value in zip(row, found, strict=True):
                phi.add_incoming(value, builder.block)
        at.add_incoming(following, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return at, sums

    def _row(self, edge: Any) -> Row:
        """The row that an edge comes from."""
        row, zero = self._address(edge), _INTEGER(0)
        vectors = []
        for place in self._places:
            vector = self.builder.load(self.builder.gep(row, [zero, _INTEGER(place)]))
            vector.align = 4  # numpy promises that of elements, not of rows
            vectors.append(vector)
        return vectors

    def _address(self, edge: Any) -> Any:
        index = self.builder.load(self.builder.gep(self._indices, [edge]))
        return self.builder.gep(self._rows, [self._to_position(index)])

    def _prefetch(self, edge: Any, count: int) -> None:
        """Ask for the rows of some edges, if there are so many."""
        builder = self.builder
        byte = ir.PointerType(ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [byte, _INTEGER, _INTEGER, _INTEGER])
        prefetch = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, kind, "llvm.prefetch.p0"
        )
        manner = [_INTEGER(0), _INTEGER(3), _INTEGER(1)]  # to be read, into all caches, data
        there = builder.icmp_signed("<=", self._plus(edge, count), self._length)
        with builder.if_then(there, likely=True):
            for place in range(count):
                address = builder.bitcast(self._address(self._plus(edge, place)), byte)
                builder.call(prefetch, [address, *manner])

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
def sum_of_rows(typing_context, state, indices, first, last):  # type: ignore[no-untyped-def]
    """Sum of the rows state[indices[first:last]] of float64[n, 8]: places 0, 1, 2, 4, 5, 6.

    A row holds high parts and, four places on, low parts. The last one to four rows are added by
    two-sum: the rounding errors of the sum of high parts are in the sum of low parts. The rows
    before are dealt out to four plain sums, which are added up first.
    """
    check_rows(state, indices, types.float64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = PickedRows(context, builder, signature.args, arguments, [_FOUR_FLOATS] * 2)

        def plain(total: Row, row: Row) -> Row:
            return [builder.fadd(*pair) for pair in zip(total, row, strict=True)]

        def exact(total: Row, row: Row) -> Row:
            high = builder.fadd(total[0], row[0])
            part = builder.fsub(high, total[0])
            of_total = builder.fsub(total[0], builder.fsub(high, part))
            error = builder.fadd(of_total, builder.fsub(row[0], part))
            return [high, builder.fadd(total[1], builder.fadd(error, row[1]))]

        zero = ir.Constant(_FOUR_FLOATS, [0.0] * 4)
        edge, (one, two, three, four) = rows.fold(rows.first, [[zero, zero]] * 4, plain, spared=1)
        total = plain(plain(one, two), plain(three, four))
        _, [total] = rows.fold(edge, [total], exact)
        sums = [builder.extract_element(part, _INTEGER(x)) for part in total for x in range(3)]
        return cgutils.pack_array(builder, sums)  # type: ignore[no-untyped-call]

    six = types.UniTuple(types.float64, 6)  # type: ignore[no-untyped-call]
    return six(state, indices, first, last), generate
