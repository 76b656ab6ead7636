"""What counts as a nonlinearity, and which paths through attention are followed."""

from dataclasses import dataclass
from typing import Literal

from pathlen.errors import PathlenError

COUNTABLE = ("activation", "softmax", "normalization", "pooling", "product")


@dataclass(frozen=True, slots=True)
class Policy:
    """Choices of the user that change the numbers (docs/definitions.md).

    Attributes:
        count: kinds of operation whose units are nonlinearities, out of `COUNTABLE`. The default
            counts activations only: the units that a slope can linearize, so that a fully
            linearized network has average path length 0, as in the paper.
        attention: "full" follows the paths through queries, keys and values; "value" drops the
            query and key paths.
        tolerance: a scalar function whose slope varies by no more than this share of its
            steepest slope is affine. For a PReLU of slope alpha that share is |1 - alpha|, the
            quantity that the paper compares with its freezing threshold of 0.01.

    Raises:
        PathlenError: a name in `count` or a value of `attention` is unknown, or the tolerance is
            not in [0, 1).
    """

    count: frozenset[str] = frozenset({"activation"})
    attention: Literal["full", "value"] = "full"
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if isinstance(self.count, str):
            raise PathlenError(f"Policy(count=...) takes a set of names, e.g. {{'{self.count}'}}")
        object.__setattr__(self, "count", frozenset(self.count))
        if unknown := sorted(self.count - set(COUNTABLE)):
            raise PathlenError(
                f"Policy(count=...) does not know {unknown}; choose from {', '.join(COUNTABLE)}"
            )
        if self.attention not in ("full", "value"):
            raise PathlenError(
                f"Policy(attention={self.attention!r}) is unknown; choose 'full' or 'value'"
            )
        if not isinstance(self.tolerance, int | float) or not 0 <= self.tolerance < 1:
            raise PathlenError(f"Policy(tolerance={self.tolerance!r}) must lie in [0, 1)")

    def counts(self, kind: str) -> bool:
        """Whether units of this kind (a name of `COUNTABLE`) are nonlinearities."""
        return kind in self.count


DEFAULT_POLICY = Policy()


def check_policy(policy: object) -> None:
    """Refuse what is no policy.

    Raises:
        PathlenError: It is none; the message says how one is written.
    """
    if isinstance(policy, Policy):
        return
    written = "Policy(count={'activation', 'softmax'})"
    if isinstance(policy, str) and policy in ("full", "value"):
        written = f"Policy(attention={policy!r})"
    elif isinstance(policy, str) and policy in COUNTABLE:
        written = f"Policy(count={{{policy!r}}})"
    elif isinstance(policy, dict):
        written = f"Policy(**{policy})"
    raise PathlenError(f"policy={policy!r} is no pathlen.Policy; write pathlen.{written}")
