"""The small pieces a path graph is made of: node kinds, rows of the layers table, origin."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pathlen.errors import GraphError

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

STATUSES = ("exact", "example", "bound", "opaque")


class Kind(enum.IntEnum):
    """What a node of a path graph is."""

    INPUT = 0
    UNIT = 1
    HUB = 2
    OUTPUT = 3


@dataclass(frozen=True, slots=True)
class Layer:
    """A row of the layers table: one call site, whose nodes have consecutive ids.

    Attributes:
        name: Module path of the call site, unique in a graph ("layer1.0.relu#2").
        operation: What the call site does ("relu", "conv2d", "input", "output", ...).
        first: Id of its first node.
        count: Number of its nodes, hubs included.
    """

    name: str
    operation: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class DeadUnits:
    """Units of one layer that weights of 0 cut off from the inputs or from the outputs.

    Attributes:
        layer: Name of the layer; one that is dead as a whole has no row in the layers table.
        operation: What the layer does.
        indices: Which units, counted among those that the layer has without weights
            (`edges="connections"`): for a convolution, its channels.
        units: How many units the layer has without weights.
    """

    layer: str
    operation: str
    indices: tuple[int, ...]
    units: int


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """Where a traced graph came from.

    Attributes:
        tracer: Which tracer made it ("eager recorder (fake tensors)", "torch.export", ...).
        status: The worst of what was found: "exact", "example" (exact for this example, of
            which another may have another graph), "bound" (a superset of the true connections)
            or "opaque".
        causes: What caused a status other than exact, and other remarks.
        seconds: Time spent, by stage.
        dead: Units that drop out because weights are 0 (`edges="weights"`), by layer.
    """

    tracer: str
    status: str
    causes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    dead: tuple[DeadUnits, ...] = ()

    def __post_init__(self) -> None:
        """Raise GraphError for a status that does not exist; keep copies of the collections."""
        if self.status not in STATUSES:
            raise GraphError(
                f"trace status {self.status!r} does not exist; use one of {', '.join(STATUSES)}"
            )
        object.__setattr__(self, "causes", tuple(self.causes))
        object.__setattr__(self, "seconds", dict(self.seconds))
        object.__setattr__(self, "dead", tuple(self.dead))
