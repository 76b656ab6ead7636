"""Solvers of path graphs behind one small protocol; nothing heavy is imported here.

`protocol` says what a backend is, `registry` finds one by name and asks it for what not every
backend gives. A backend is the module `_NAME`, its parts are `_NAME_*`; `_compiled`, `_compensated`
and `_rows` are shared by what numba compiles.
"""

from pathlen.backends.protocol import Backend, Capabilities, Solution
from pathlen.backends.registry import (
    NEEDS,
    available,
    choose,
    choose_for_once,
    distribution_of,
    get,
    gives,
    register,
)

__all__ = [
    "NEEDS",
    "Backend",
    "Capabilities",
    "Solution",
    "available",
    "choose",
    "choose_for_once",
    "distribution_of",
    "get",
    "gives",
    "register",
]
