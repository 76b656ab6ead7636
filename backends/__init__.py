"""Solvers of path graphs behind one small protocol; nothing heavy is imported here."""

from typing import TYPE_CHECKING

from pathlen.backends.asking import NEEDS, averages_of, distribution_of, gives, require, solution_of
from pathlen.backends.protocol import Averages, Backend, Capabilities, Solution
from pathlen.backends.registry import available, choose, get, register

if TYPE_CHECKING:
    from pathlen.backends._torch import TorchBackend as TorchBackend

__all__ = [
    "NEEDS",
    "Averages",
    "Backend",
    "Capabilities",
    "Solution",
    "available",
    "averages_of",
    "choose",
    "distribution_of",
    "get",
    "gives",
    "register",
    "require",
    "solution_of",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """`TorchBackend`, for another device than the CPU; it imports torch."""
        if name != "TorchBackend":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pathlen.backends._torch import TorchBackend

        return TorchBackend
