"""Sizes that are expressions, as programs are saved with them: read, and found to be arithmetic.

torch makes expressions of these texts by sympy, which runs them as Python. So they are parsed here
first: numbers, names of sizes, and functions of sizes are let through. Their numbers stay small,
for sympy computes `9**9**9` when it meets it.
"""

from __future__ import annotations

import ast
import math
import re

SYMBOL = re.compile(r"[a-z]{1,3}\d{1,6}")
"""How torch names a size that is not known: s0, u1, ..."""

MOST_LETTERS = 20_000
_MOST_BITS = 4096
_MOST_EXPONENT_BITS = 16

_ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.expr_context,
)

# fmt: off
SIZE_FUNCTIONS = frozenset({
    "Symbol", "Abs", "Max", "Min", "Mod", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or",
    "LessThan", "StrictLessThan", "GreaterThan", "StrictGreaterThan", "Equality", "Unequality",
    "Not", "Integer", "Rational", "Add", "Mul", "Pow", "floor", "ceiling", "true", "false",
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt",
    "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv",
    "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt",
    "RoundDecimal", "ToFloat", "Identity",
})
_PROPERTIES = frozenset({
    "positive", "negative", "nonnegative", "nonpositive", "nonzero", "zero", "integer", "real",
    "finite", "even", "odd", "extended_real", "evaluate",
})
# fmt: on
_POWERS = ("Pow", "PowByNatural", "FloatPow")


def is_arithmetic(text: str) -> bool:
    """Whether an expression holds only numbers, names of sizes and functions of sizes."""
    if len(text) > MOST_LETTERS:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return all(map(_is_fine, ast.walk(tree))) and _bits(tree.body) <= _MOST_BITS
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_fine(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in SIZE_FUNCTIONS or SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        # A text is an expression of its own to sympy, so it may only be a size's name.
        if isinstance(node.value, str):
            return SYMBOL.fullmatch(node.value) is not None
        return isinstance(node.value, (bool, int, float))
    if isinstance(node, ast.keyword):
        return node.arg in _PROPERTIES
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    return isinstance(node, _ARITHMETIC)


def _bits(node: ast.AST) -> float:
    """Bits that the numbers of an expression take at most when sympy computes them."""
    if isinstance(node, ast.Constant):
        return float(node.value.bit_length()) if isinstance(node.value, int) else 64.0
    if isinstance(node, ast.Name):
        return 1.0  # is not computed
    is_call = isinstance(node, ast.Call)
    name = node.func.id if is_call and isinstance(node.func, ast.Name) else ""  # type: ignore[attr-defined]
    if isinstance(node, ast.BinOp):
        parts: list[ast.AST] = [node.left, node.right]
    else:
        parts = list(node.args) if is_call else list(ast.iter_child_nodes(node))  # type: ignore[attr-defined]
    bits = [_bits(part) for part in parts]
    operator = getattr(node, "op", None)
    if (name in _POWERS or isinstance(operator, ast.Pow)) and len(parts) == 2:
        return bits[0] * _largest(parts[1])
    if (name == "LShift" or isinstance(operator, ast.LShift)) and len(parts) == 2:
        return bits[0] + _largest(parts[1])
    if name in ("Mul", "Rational") or isinstance(operator, (ast.Mult, ast.Div)):
        return sum(bits)
    return max(bits, default=0.0) + 1


def _largest(exponent: ast.AST) -> float:
    """The largest value of an exponent, as far as it is computed."""
    if isinstance(exponent, ast.UnaryOp):
        return _largest(exponent.operand)
    if isinstance(exponent, ast.Constant) and isinstance(exponent.value, (int, float)):
        return abs(float(exponent.value))
    bits = _bits(exponent)
    return 2.0**bits if bits <= _MOST_EXPONENT_BITS else math.inf
