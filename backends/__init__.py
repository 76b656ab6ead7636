"""Solvers of path graphs behind one small protocol; nothing heavy is imported here.

`protocol` says what a backend is, `registry` finds one by name, `asking` asks it for what it can
give. A backend is the module `_NAME`, its parts are `_NAME_*`; `_compiled`, `_compensated` and
`_rows` are shared by what numba compiles.
"""

from typing import TYPE_CHECKING

from pathlen.backends.asking import NEEDS, averages_of, distribution_of, gives, require, solution_of
from pathlen.backends.protocol import Averages, Backend, Capabilities, Solution
from pathlen.backends.registry import available, choose, get, register
from pathlen.lazy import lazy_names

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

if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object
    # For another device than the CPU; it imports torch.
    __getattr__, __dir__ = lazy_names(__name__, {"TorchBackend": "pathlen.backends._torch"})
