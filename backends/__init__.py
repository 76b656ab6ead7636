"""Solvers of path graphs behind one small protocol; nothing heavy is imported here."""

from typing import TYPE_CHECKING

from pathlen.backends.protocol import Backend, Capabilities, Solution
from pathlen.backends.registry import available, choose, get, register

if TYPE_CHECKING:
    from pathlen.backends._torch import TorchBackend as TorchBackend

__all__ = ["Backend", "Capabilities", "Solution", "available", "choose", "get", "register"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """`TorchBackend`, for another device than the CPU; it imports torch."""
        if name != "TorchBackend":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pathlen.backends._torch import TorchBackend

        return TorchBackend
