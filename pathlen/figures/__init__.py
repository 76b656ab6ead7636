"""Figures for papers, drawn with matplotlib (``pip install 'pathlen[figures]'``).

Every function draws into the axes given as ``ax``, or makes a figure of one column of a paper, and
returns the axes. Settings of matplotlib are never changed: what pathlen sets holds for what it
draws. `save` writes a figure as vector graphics whose text stays text.

matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathlen.lazy import lazy_names

if TYPE_CHECKING:
    from pathlen.figures.cases import plot_cases as plot_cases
    from pathlen.figures.contributions import plot_contributions as plot_contributions
    from pathlen.figures.core_network import plot_core_network as plot_core_network
    from pathlen.figures.path_lengths import plot_path_lengths as plot_path_lengths
    from pathlen.figures.style import COLUMN_WIDTH as COLUMN_WIDTH
    from pathlen.figures.style import save as save
    from pathlen.figures.tradeoff import plot_tradeoff as plot_tradeoff
    from pathlen.figures.training import plot_training as plot_training
    from pathlen.figures.trend import plot_trend as plot_trend
    from pathlen.figures.widths import plot_width_profile as plot_width_profile

# name -> the module that defines it
_EXPORTS = {
    "COLUMN_WIDTH": "pathlen.figures.style",
    "plot_cases": "pathlen.figures.cases",
    "plot_contributions": "pathlen.figures.contributions",
    "plot_core_network": "pathlen.figures.core_network",
    "plot_path_lengths": "pathlen.figures.path_lengths",
    "plot_tradeoff": "pathlen.figures.tradeoff",
    "plot_training": "pathlen.figures.training",
    "plot_trend": "pathlen.figures.trend",
    "plot_width_profile": "pathlen.figures.widths",
    "save": "pathlen.figures.style",
}

__all__ = sorted(_EXPORTS)

if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object
    __getattr__, __dir__ = lazy_names(__name__, _EXPORTS)
