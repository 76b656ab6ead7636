"""Solvers of path graphs behind one small protocol; nothing heavy is imported here."""

from pathlen.backends.protocol import Backend, Capabilities, Solution
from pathlen.backends.registry import available, choose, get, register

__all__ = ["Backend", "Capabilities", "Solution", "available", "choose", "get", "register"]
