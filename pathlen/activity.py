"""Empirical activities: how nonlinear each unit of a model acts on data.

>>> result = pathlen.activity.from_data(model, loader)
>>> result.report().normalized_average_path_length
"""

from pathlen.empirical.result import EmpiricalActivity, LayerActivity
from pathlen.empirical.run import from_data

__all__ = ["EmpiricalActivity", "LayerActivity", "from_data"]
