"""Rules for operators of the user's own."""

from collections.abc import Callable
from typing import Any, Literal

from pathlen.errors import PathlenError
from pathlen.lowering import program  # noqa: F401 - fills the table of rules
from pathlen.lowering.decompose import EQUIVALENTS
from pathlen.lowering.operations import operation_name
from pathlen.lowering.rules import Apply, rule, rule_named
from pathlen.tracing.pure import allow

Named = Literal["elementwise", "movement", "normalization"]


def register_rule(
    operator: Any, how: Named | Apply | None = None, *, like: Callable[..., Any] | None = None
) -> None:
    """Tell pathlen what an operator of your own does (`torch.library`, Triton, C++).

    Exported programs may call it from then on, those of .pt2 files included.

    Args:
        operator: its name ("mylib::swish") or the operator itself (`torch.ops.mylib.swish`).
        how: "elementwise" where each element of the result is a function of one element of each
            operand; "movement" where elements only change places (it is then run on int64 or
            float64 tensors of labels); "normalization" where it is affine once its statistics are
            held fixed; or a function of (call, lowering) that returns the value of the result and
            adds what is needed to the graph, as the rules in `pathlen.lowering` do.
        like: instead of `how`, a function of the same arguments that computes the same by
            operations of torch; it is lowered in place of the operator.

    Raises:
        PathlenError: neither or both of `how` and `like` are given, `how` is an unknown word, or
            the operator has a rule of pathlen's own.
    """
    name = _name_of(operator)
    if (how is None) == (like is None):
        raise PathlenError(f"register_rule({name!r}): give either a rule or like=")
    if name.startswith("aten."):
        raise PathlenError(f"register_rule({name!r}): operators of torch keep their rules")
    if like is not None:
        EQUIVALENTS[name] = like
        allow(name)
    elif callable(how):
        rule("layer", name)(how)
    elif how in ("elementwise", "movement", "normalization"):
        known = rule_named("aten.layer_norm" if how == "normalization" else how)
        rule(known.kind, name)(known.apply)
    else:
        raise PathlenError(
            f"register_rule({name!r}): {how!r} is unknown; choose from elementwise, movement,"
            " normalization, or give a function"
        )


def _name_of(operator: Any) -> str:
    if isinstance(operator, str):
        return operator.replace("::", ".")
    overloads = operator.overloads() if hasattr(operator, "overloads") else None
    return operation_name(getattr(operator, overloads[0]) if overloads else operator)
