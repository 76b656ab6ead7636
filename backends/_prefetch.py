"""The processor's prefetch instruction for compiled sweeps.

A sweep reads the rows of predecessors wherever they lie. The order is known from the indices long
before, but so much arithmetic stands between two reads that the processor looks only a few reads
ahead by itself.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 32  # edges


@intrinsic
def prefetch_row(typing_context, array, row):  # type: ignore[no-untyped-def]
    """Ask for the first bytes of a row of a C-contiguous matrix; no row is touched."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, matrix.strides)[0]  # type: ignore[no-untyped-call]
        number = context.cast(builder, arguments[1], signature.args[1], types.intp)
        address = builder.add(
            builder.ptrtoint(matrix.data, stride.type), builder.mul(number, stride)
        )
        byte = builder.inttoptr(address, ir.PointerType(ir.IntType(8)))
        integer = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte.type, integer, integer, integer])
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, kind, "llvm.prefetch.p0"
        )
        # to be read, kept in all caches, data
        builder.call(function, [byte, integer(0), integer(3), integer(1)])
        return context.get_dummy_value()

    return types.void(array, row), generate
