"""Average path length: the effective depth of any PyTorch model.

    >>> import pathlen
    >>> report = pathlen.measure(model, torch.randn(1, 3, 224, 224))
    >>> report.normalized_average_path_length

Importing this package is cheap: what it offers is imported when first used (PEP 562), so neither
torch nor a graph library is loaded by ``import pathlen``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathlen.lazy import lazy_names

if TYPE_CHECKING:
    from pathlen import activity as activity
    from pathlen import backends as backends
    from pathlen import figures as figures
    from pathlen.api import measure as measure
    from pathlen.api import trace as trace
    from pathlen.errors import ActivityError as ActivityError
    from pathlen.errors import BackendError as BackendError
    from pathlen.errors import CheckpointError as CheckpointError
    from pathlen.errors import DataError as DataError
    from pathlen.errors import GraphError as GraphError
    from pathlen.errors import GraphFileError as GraphFileError
    from pathlen.errors import LinearizationError as LinearizationError
    from pathlen.errors import ModelError as ModelError
    from pathlen.errors import MonitorError as MonitorError
    from pathlen.errors import PathlenError as PathlenError
    from pathlen.errors import ReportError as ReportError
    from pathlen.errors import SettingsError as SettingsError
    from pathlen.errors import SpecError as SpecError
    from pathlen.errors import StudyError as StudyError
    from pathlen.errors import TraceError as TraceError
    from pathlen.errors import TrainingError as TrainingError
    from pathlen.errors import UnsafeProgram as UnsafeProgram
    from pathlen.errors import UnsupportedOperation as UnsupportedOperation
    from pathlen.errors import VerificationError as VerificationError
    from pathlen.graph.path_graph import Kind as Kind
    from pathlen.graph.path_graph import Layer as Layer
    from pathlen.graph.path_graph import PathGraph as PathGraph
    from pathlen.lowering.register import register_rule as register_rule
    from pathlen.monitor.differentiable import DifferentiableAverage as DifferentiableAverage
    from pathlen.monitor.monitor import DepthMonitor as DepthMonitor
    from pathlen.monitor.monitor import DepthReading as DepthReading
    from pathlen.policy import Policy as Policy
    from pathlen.report.comparison import Comparison as Comparison
    from pathlen.report.comparison import compare as compare
    from pathlen.report.data import report_schema as report_schema
    from pathlen.report.layer_graph import LayerEdge as LayerEdge
    from pathlen.report.layer_graph import LayerGraph as LayerGraph
    from pathlen.report.layer_graph import LayerNode as LayerNode
    from pathlen.report.layer_graph import layer_graph as layer_graph
    from pathlen.report.layer_graph import write_graphml as write_graphml
    from pathlen.report.report import Report as Report
    from pathlen.report.whatif import Linearization as Linearization
    from pathlen.report.whatif import greedy_linearization as greedy_linearization
    from pathlen.report.whatif import linearize as linearize
    from pathlen.verification import Verdict as Verdict
    from pathlen.verification import verify as verify

__version__ = "0.1.0"

# name -> the module that defines it
_EXPORTS = {
    "DepthMonitor": "pathlen.monitor.monitor",
    "DepthReading": "pathlen.monitor.monitor",
    "DifferentiableAverage": "pathlen.monitor.differentiable",
    "Comparison": "pathlen.report.comparison",
    "Linearization": "pathlen.report.whatif",
    "LayerEdge": "pathlen.report.layer_graph",
    "LayerGraph": "pathlen.report.layer_graph",
    "LayerNode": "pathlen.report.layer_graph",
    "compare": "pathlen.report.comparison",
    "greedy_linearization": "pathlen.report.whatif",
    "layer_graph": "pathlen.report.layer_graph",
    "linearize": "pathlen.report.whatif",
    "measure": "pathlen.api",
    "register_rule": "pathlen.lowering.register",
    "trace": "pathlen.api",
    "write_graphml": "pathlen.report.layer_graph",
    "verify": "pathlen.verification",
    "PathGraph": "pathlen.graph.path_graph",
    "Kind": "pathlen.graph.path_graph",
    "Layer": "pathlen.graph.path_graph",
    "Policy": "pathlen.policy",
    "Report": "pathlen.report.report",
    "report_schema": "pathlen.report.data",
    "Verdict": "pathlen.verification",
    "MonitorError": "pathlen.errors",
    "PathlenError": "pathlen.errors",
    "ActivityError": "pathlen.errors",
    "BackendError": "pathlen.errors",
    "CheckpointError": "pathlen.errors",
    "DataError": "pathlen.errors",
    "GraphError": "pathlen.errors",
    "GraphFileError": "pathlen.errors",
    "LinearizationError": "pathlen.errors",
    "ModelError": "pathlen.errors",
    "ReportError": "pathlen.errors",
    "SettingsError": "pathlen.errors",
    "SpecError": "pathlen.errors",
    "StudyError": "pathlen.errors",
    "TraceError": "pathlen.errors",
    "UnsafeProgram": "pathlen.errors",
    "UnsupportedOperation": "pathlen.errors",
    "TrainingError": "pathlen.errors",
    "VerificationError": "pathlen.errors",
}

_SUBMODULES = ("activity", "backends", "figures")

__all__ = ["__version__", *_SUBMODULES, *_EXPORTS]

if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object
    __getattr__, __dir__ = lazy_names(__name__, _EXPORTS, _SUBMODULES)
