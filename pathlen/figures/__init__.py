"""Figures for papers, drawn with matplotlib (``pip install 'pathlen[figures]'``).

Every function draws into the axes given as ``ax``, or makes a figure of one column of a paper, and
returns the axes. Settings of matplotlib are never changed: what pathlen sets holds for what it
draws. `save` writes a figure as vector graphics whose text stays text.

matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlen.figures.contributions import plot_contributions as plot_contributions
    from pathlen.figures.core_network import plot_core_network as plot_core_network
    from pathlen.figures.path_lengths import plot_path_lengths as plot_path_lengths
    from pathlen.figures.style import COLUMN_WIDTH as COLUMN_WIDTH
    from pathlen.figures.style import save as save
    from pathlen.figures.tradeoff import plot_tradeoff as plot_tradeoff
    from pathlen.figures.training import plot_training as plot_training
    from pathlen.figures.widths import plot_width_profile as plot_width_profile

# name -> the module that defines it
_EXPORTS = {
    "COLUMN_WIDTH": "style",
    "plot_contributions": "contributions",
    "plot_core_network": "core_network",
    "plot_path_lengths": "path_lengths",
    "plot_tradeoff": "tradeoff",
    "plot_training": "training",
    "plot_width_profile": "widths",
    "save": "style",
}

__all__ = sorted(_EXPORTS)

if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object

    def __getattr__(name: str) -> object:
        """Import the module that defines ``name`` on first use and keep the value."""
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"pathlen.figures.{_EXPORTS[name]}")
        globals()[name] = getattr(module, name)
        return globals()[name]


def __dir__() -> list[str]:
    """Offer the lazy names to tab completion."""
    return sorted({*globals(), *__all__})
