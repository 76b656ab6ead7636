"""The path graph: frozen arrays in topological order, validated once, with a layers table.

Definitions of unit, hub and path follow Mehmeti-Göpel & Disselhoff, "Nonlinear Advantage",
ICML 2023, arXiv:2211.17180. Only numpy is imported here; other libraries load when asked for.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pathlen.errors import ActivityError, GraphError
from pathlen.graph import build, check
from pathlen.graph.parts import FloatArray, IntArray, Kind, Layer, TraceInfo

if TYPE_CHECKING:
    import igraph
    import networkx
    import scipy.sparse

    from pathlen.graph.between import Places

__all__ = ["Kind", "Layer", "PathGraph", "TraceInfo"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PathGraph:
    """A directed acyclic graph of units and hubs, from input nodes to output nodes.

    With n nodes and e edges; all arrays are read-only. Every node lies on a path from an input to
    an output. An input tensor is a layer of input nodes, an output tensor a layer of output nodes.

    Attributes:
        indptr: int64[n + 1], where each node's predecessors start in `indices`.
        indices: int32[e] (int64 from 2**31 nodes on), predecessors: ascending, distinct, each
            smaller than its node.
        activity: float64[n] in [0, 1]; hubs have 0.
        kind: uint8[n], values of `Kind`.
        layer: int32[n], row of `layers` that each node belongs to.
        layers: The layers table; its rows cover the nodes in order.
        node_ids: int64[n], the caller's own numbering (`from_edges`), -1 for a node that was
            added; None for a traced graph, whose own one a part of it has (`between`).
        info: Where a traced graph came from; None otherwise.
        weights: float64[e], the absolute weight of each edge, above 0 ("magnitude" weighting);
            None for a graph of connections alone.

    Raises:
        GraphError: The arrays do not make a path graph; every problem is listed.
    """

    indptr: npt.NDArray[np.int64]
    indices: IntArray
    activity: FloatArray
    kind: npt.NDArray[np.uint8]
    layer: npt.NDArray[np.int32]
    layers: tuple[Layer, ...]
    node_ids: npt.NDArray[np.int64] | None = None
    info: TraceInfo | None = None
    weights: FloatArray | None = None

    def __post_init__(self) -> None:
        """Freeze the arrays and check them, once."""
        problems: list[str] = []
        index_type = np.int64 if np.size(self.kind) >= 2**31 else np.int32
        for name, dtype in (
            ("indptr", np.int64),
            ("indices", index_type),
            ("activity", np.float64),
            ("kind", np.uint8),
            ("layer", np.int32),
            ("node_ids", np.int64),
            ("weights", np.float64),
        ):
            if name not in ("node_ids", "weights") or getattr(self, name) is not None:
                problems += self._freeze(name, np.dtype(dtype))
        object.__setattr__(self, "layers", tuple(self.layers))
        if not problems:
            problems = self._problems()
        if problems:
            raise GraphError("not a path graph:\n  " + "\n  ".join(problems))

    def _freeze(self, name: str, dtype: np.dtype[Any]) -> list[str]:
        """Replace one array by a read-only one of the right type; say so if that loses values."""
        given = np.asarray(getattr(self, name))
        if given.ndim != 1:
            return [f"{name} must have one dimension; it has shape {given.shape}"]
        if given.size and given.dtype.kind not in ("biuf" if dtype.kind == "f" else "iu"):
            return [f"{name} must hold {dtype}; it holds {given.dtype}"]
        if given.size and dtype.kind in "iu":
            bounds = np.iinfo(dtype)
            if int(given.min()) < bounds.min or int(given.max()) > bounds.max:
                return [f"{name} must fit {dtype}; it runs from {given.min()} to {given.max()}"]
        # An array that is already frozen and owned by nobody else is shared, not copied.
        if given.dtype != dtype or given.flags.writeable or not given.flags.owndata:
            given = np.array(given, dtype=dtype)
            given.setflags(write=False)
        object.__setattr__(self, name, given)
        return []

    def _problems(self) -> list[str]:
        """Everything that is wrong with arrays of the right types."""
        size = len(self.kind)
        if len(self.activity) != size or len(self.layer) != size or size == 0:
            return [
                f"activity ({len(self.activity)}), kind ({size}) and layer ({len(self.layer)}) "
                "must have one entry a node, and there must be a node"
            ]
        problems = check.structure_problems(self.indptr, self.indices, size)
        if not problems:  # edges in range: degrees mean something
            problems += check.kind_problems(self.indptr, self.indices, self.kind)
        problems += check.activity_problems(self.activity, self.kind)
        problems += check.layer_problems(self.layers, self.layer, self.kind)
        problems += check.id_problems(self.node_ids, size)
        problems += check.weight_problems(self.weights, len(self.indices))
        return problems

    @classmethod
    def from_edges(
        cls,
        edges: npt.ArrayLike,
        *,
        weights: npt.ArrayLike | None = None,
        num_nodes: int | None = None,
        activity: Sequence[float] | npt.NDArray[Any] | Mapping[int, float] | None = None,
        inputs: Sequence[int] | npt.NDArray[Any] | None = None,
        outputs: Sequence[int] | npt.NDArray[Any] | None = None,
        layers: Sequence[str] | Mapping[int, str] | None = None,
    ) -> "PathGraph":
        """Build a path graph from any directed acyclic graph.

        Nodes and edges on no input-output path are dropped. A declared input that still has
        predecessors, and a declared output that has successors or is an input too, gets one added
        terminal node of activity 0. `node_ids` of the result holds the numbering used here.

        Args:
            edges: int[e, 2] of (from, to) in any order; repeated edges count once.
            weights: float[e], absolute weights of the edges for the "magnitude" weighting. Those
                of repeated edges are added up; an edge of weight 0 is left out, which makes
                nothing an input or output that was none.
            num_nodes: Number of nodes, if larger than the largest id + 1.
            activity: In [0, 1], one a node id, or by node id; by default 1 for every node
                between the inputs and the outputs, 0 for those.
            inputs: Node ids; by default the sources.
            outputs: Node ids; by default the sinks.
            layers: A name per node id. Inputs (outputs) of one name are one input (output)
                tensor. By default one input layer, one output layer, and a layer for each
                topological generation between.

        Raises:
            GraphError: The edges have a cycle (one is named), or no input reaches an output, or
                weights are negative or not finite, or an argument does not fit.
            ActivityError: Activities are not numbers in [0, 1], one a node.
        """
        return cls(
            **build.parts_from_edges(edges, num_nodes, activity, inputs, outputs, layers, weights)
        )

    @classmethod
    def from_arrays(
        cls,
        indptr: npt.ArrayLike,
        indices: npt.ArrayLike,
        activity: npt.ArrayLike,
        kind: npt.ArrayLike,
        layer_of_node: npt.ArrayLike,
        layers: Sequence[Layer],
        info: TraceInfo | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> "PathGraph":
        """Build a path graph from nodes in topological order whose layers are consecutive.

        Nodes on no input-output path and layers left empty are dropped, repeated predecessors
        count once (their weights are added up), edges of weight 0 are left out; `first` and
        `count` of the given layers are ignored and computed anew.

        Args:
            indptr: int[n + 1], where each node's predecessors start in `indices`.
            indices: int[e], predecessors.
            activity: float[n] in [0, 1].
            kind: int[n], values of `Kind`.
            layer_of_node: int[n], rows of `layers`, ascending.
            layers: The layers table.
            info: Where the graph came from.
            weights: float[e], absolute weights of the edges.

        Raises:
            GraphError: No path leads from an input to an output, weights are negative or not
                finite, or the arrays do not fit.
            ActivityError: Activities are not numbers in [0, 1], one a node.
        """
        parts = build.parts_from_arrays(
            indptr, indices, activity, kind, layer_of_node, layers, weights
        )
        return cls(**parts, info=info)

    def with_activity(
        self,
        activity: Sequence[float] | npt.NDArray[Any] | Mapping[str, float | npt.ArrayLike],
    ) -> "PathGraph":
        """The same graph with other activities.

        Args:
            activity: One value in [0, 1] a node (0 at hubs), or by layer name one value for
                all units of that layer or one for each (hubs and outputs are not units);
                layers that are not named keep theirs.

        Raises:
            ActivityError: A layer has no such name (the nearest are given) or no units, or
                values do not fit, are not finite or are outside [0, 1].
        """
        if isinstance(activity, Mapping):
            values = self.activity.copy()
            for name, layer_values in activity.items():
                self._set_layer(values, name, layer_values)
        else:
            values = check.checked_activity(activity, self.num_nodes)
        values = check.checked_activity(values, self.num_nodes)
        active_hubs = np.flatnonzero((self.kind == Kind.HUB) & (values != 0))
        if active_hubs.size:
            raise ActivityError(f"hubs must have activity 0; node {active_hubs[0]} does not")
        values.setflags(write=False)
        return self._with("activity", values)

    def with_info(self, info: TraceInfo | None) -> "PathGraph":
        """The same graph that says something else of where it comes from."""
        return self._with("info", info)

    def _with(self, name: str, value: object) -> "PathGraph":
        """The same graph with another value of a field that its structure does not depend on.

        The structure is checked already: checking it again would cost more than a solve.
        """
        graph = object.__new__(PathGraph)
        for field in fields(self):
            own = value if field.name == name else getattr(self, field.name)
            object.__setattr__(graph, field.name, own)
        return graph

    def _set_layer(self, values: FloatArray, name: str, layer_values: object) -> None:
        """Write one layer's unit activities into `values`."""
        units = self.units_of(name, error=ActivityError)
        units = units[self.kind[units] != Kind.OUTPUT]
        if not units.size:
            raise ActivityError(f"layer {name!r} has no units: its nodes are outputs or hubs")
        try:
            given = np.asarray(layer_values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ActivityError(f"layer {name!r}: activities must be numbers: {error}") from error
        if given.shape not in ((), (len(units),)):
            raise ActivityError(
                f"layer {name!r} has {len(units)} units; give one activity or {len(units)}, "
                f"not an array of shape {given.shape}"
            )
        values[units] = given

    def units_of(
        self, layer: Layer | str, *, error: type[Exception] = GraphError
    ) -> npt.NDArray[np.int64]:
        """Ids of a layer's nodes that are not hubs: int64[units], ascending.

        Args:
            layer: A row of `layers`, or its name.
            error: What to raise for an unknown name; the message gives the nearest names.
        """
        if isinstance(layer, str):
            rows = {row.name: row for row in self.layers}
            if layer not in rows:
                near = difflib.get_close_matches(layer, rows, n=3, cutoff=0.3) or list(rows)[:3]
                raise error(
                    f"no layer is named {layer!r}; nearest are {', '.join(map(repr, near))}"
                )
            layer = rows[layer]
        nodes = np.arange(layer.first, layer.first + layer.count, dtype=np.int64)
        units: npt.NDArray[np.int64] = nodes[self.kind[nodes] != Kind.HUB]
        return units

    def between(self, sources: "Places" = None, sinks: "Places" = None) -> "PathGraph":
        """The part of the graph on paths from some places to others, as a graph of its own.

        A *layer*, by its name, by a pattern over names ("layer1.*", as for files) or as a row of
        `layers`, stands for its units, and an integer for the node with that id. Paths from them
        to others have the activities of both ends. The path of a *module* ("layer1") stands for
        where paths enter it, if a source, and where they leave it, if a sink: what feeds it does
        not count, so that `between("layer1", "layer1")` is the module alone. In doubt, a name is
        that of a layer; "layer1." with a dot is always the module.

        Nodes of activity 0 are added in front of sources and behind sinks that are not terminals
        already. Sources of one layer are one input tensor, sinks of one layer one output tensor.

        Args:
            sources: Names, rows of `layers` or node ids, one or several; None for all inputs.
            sinks: The same; None for all outputs.

        Returns:
            A graph whose `node_ids` are those of this one (where it has none, its node numbers),
            with the same weights and `info`. A node in place of what fed a module has the id of
            that; other added nodes have -1.

        Raises:
            GraphError: There is no such layer, module (the nearest names are given) or node, or
                no path leads from the sources to the sinks.
        """
        from pathlen.graph.between import parts_between

        return PathGraph(**parts_between(self, sources, sinks))

    def by_node_id(self, values: Sequence[Any] | npt.NDArray[Any]) -> dict[int, Any]:
        """Values of nodes under the caller's own numbering; added and dropped nodes have none.

        Args:
            values: One a node, such as `Solution.path_share`.

        Raises:
            GraphError: The graph has no numbering but its own, or the length does not fit.
        """
        if self.node_ids is None:
            raise GraphError("only a graph from `from_edges` has node ids of the caller's own")
        if len(values) != self.num_nodes:
            raise GraphError(f"expected {self.num_nodes} values, one a node; got {len(values)}")
        known = zip(self.node_ids.tolist(), values, strict=True)
        return {node: value for node, value in known if node >= 0}

    @classmethod
    def from_networkx(
        cls, graph: "networkx.DiGraph[Any]", *, weight: str | None = "weight"
    ) -> "PathGraph":
        """Build a path graph from a networkx.DiGraph, such as `to_networkx` gives.

        Nodes may carry `activity` (in [0, 1]), `kind` ("input", "hub", "unit" or "output") and
        `layer` (a name), each of them all nodes or none; what is missing is as in `from_edges`.
        `node_ids` of the result are the nodes where these are integers, else their places in
        `graph.nodes`.

        Args:
            graph: Directed, without cycles.
            weight: The attribute of the edges with their absolute weights, if they have it; None
                to leave weights out.

        Raises:
            GraphError: The graph is not directed, is a multigraph or has a cycle, or an attribute
                does not fit or is missing at some nodes or edges.
            ActivityError: Activities are not numbers in [0, 1].
        """
        from pathlen.graph.convert import parts_from_networkx

        return cls(**parts_from_networkx(graph, weight))

    @classmethod
    def from_igraph(cls, graph: "igraph.Graph", *, weight: str | None = "weight") -> "PathGraph":
        """Build a path graph from a directed igraph.Graph, such as `to_igraph` gives.

        Args:
            graph: Directed, without cycles; vertices carry what nodes do in `from_networkx`.
            weight: See `from_networkx`.

        Raises:
            GraphError: See `from_networkx`.
            ActivityError: See `from_networkx`.
        """
        from pathlen.graph.convert import parts_from_igraph

        return cls(**parts_from_igraph(graph, weight))

    def to_networkx(self) -> "networkx.DiGraph[int]":
        """A networkx.DiGraph.

        Nodes carry activity, kind, layer and node_id (if there are any), edges weight (likewise).
        """
        from pathlen.graph.convert import to_networkx

        return to_networkx(self)

    def to_igraph(self) -> "igraph.Graph":
        """A directed igraph.Graph.

        Vertices carry activity, kind, layer and node_id (if any), edges weight (likewise).
        """
        from pathlen.graph.convert import to_igraph

        return to_igraph(self)

    def to_scipy(self) -> "scipy.sparse.csr_array":
        """A scipy.sparse.csr_array [n, n]: rows are nodes, columns predecessors.

        Its entries are the weights of the edges, or ones where the graph has no weights.
        """
        from pathlen.graph.convert import to_scipy

        return to_scipy(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the graph to one .npz file, all of it or nothing."""
        from pathlen.graph.files import save

        save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "PathGraph":
        """Read a graph written by `save`.

        Raises:
            GraphFileError: The file is truncated, altered, hostile or of a newer version.
        """
        from pathlen.graph.files import built_from

        return built_from(path, cls)

    @property
    def num_nodes(self) -> int:
        """Number of nodes, hubs and terminals included."""
        return len(self.kind)

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return len(self.indices)

    @property
    def num_units(self) -> int:
        """Number of units between the inputs and the outputs."""
        return int(np.count_nonzero(self.kind == int(Kind.UNIT)))

    @property
    def num_active(self) -> int:
        """Number of nodes with an activity above 0."""
        return int(np.count_nonzero(self.activity > 0))

    @property
    def num_inputs(self) -> int:
        """Number of input nodes."""
        return int(np.count_nonzero(self.kind == int(Kind.INPUT)))

    @property
    def num_outputs(self) -> int:
        """Number of output nodes."""
        return int(np.count_nonzero(self.kind == int(Kind.OUTPUT)))

    def __repr__(self) -> str:
        """Say in one line how large the graph is."""
        return (
            f"PathGraph({self.num_nodes} nodes, {self.num_edges} edges, {self.num_inputs} inputs, "
            f"{self.num_units} units, {self.num_outputs} outputs, {self.num_active} active, "
            f"{len(self.layers)} layers)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and unpickle through the constructor, so that copies are read-only as well."""
        return PathGraph, tuple(getattr(self, field.name) for field in fields(self))
