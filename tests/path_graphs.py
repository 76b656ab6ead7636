"""Path graphs to test with: random ones, and families with a closed form."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from pathlen.graph.path_graph import PathGraph


@dataclass(frozen=True)
class RandomGraph:
    """Arguments of `PathGraph.from_edges` that give a graph."""

    edges: list[tuple[int, int]]
    activity: dict[int, float]
    inputs: list[int]
    outputs: list[int]
    layers: dict[int, str]
    weights: list[float] | None = None

    def build(self) -> PathGraph:
        """The path graph."""
        return PathGraph.from_edges(
            self.edges,
            weights=self.weights,
            activity=self.activity,
            inputs=self.inputs,
            outputs=self.outputs,
            layers=self.layers,
        )


ACTIVITIES = st.sampled_from([0.0, 1.0]) | st.floats(0.0, 1.0)
WEIGHTS = st.sampled_from([1.0, 1e-300, 1e300]) | st.floats(1e-3, 1e3) | st.floats(1e-300, 1e300)


@st.composite
def random_graphs(
    draw: st.DrawFn, *, one_tensor: bool = False, size: int = 8, weighted: bool = False
) -> RandomGraph:
    """Small graphs with hubs, shuffled ids with gaps, dead ends, soft activities.

    Inputs and outputs are spread over up to three tensors each, unless `one_tensor`; some may
    have predecessors, or successors, of their own. Edges that are `weighted` have any weight.
    """
    count = draw(st.integers(2, size))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=14))
    for hub in range(count, count + draw(st.integers(0, 2))):
        middle = draw(st.integers(1, count - 1))
        readers = draw(st.sets(st.integers(middle, count - 1), min_size=1, max_size=4))
        read = draw(st.sets(st.integers(0, middle - 1), min_size=1, max_size=4))
        edges += [(node, hub) for node in read] + [(hub, node) for node in readers]
    ids = sorted({node for edge in edges for node in edge})
    sources = [node for node in ids if all(node != edge[1] for edge in edges)]
    sinks = [node for node in ids if all(node != edge[0] for edge in edges)]
    # A source and what any path from it leads to are there, so a path is left.
    inputs = sorted({*sources, *draw(st.sets(st.sampled_from(ids), max_size=2))})
    outputs = sorted({*sinks, *draw(st.sets(st.sampled_from(ids), max_size=2))})
    if len(inputs) > 1:
        inputs.remove(draw(st.sampled_from(inputs)))
    tensor = st.just(0) if one_tensor else st.integers(0, 2)
    layers = {node: f"node {node}" for node in ids}
    layers |= {node: f"in {draw(tensor)}" for node in sources}
    layers |= {node: f"out {draw(tensor)}" for node in sinks}
    if one_tensor:  # terminals of other nodes would be tensors of their own
        inputs, outputs = sources, sinks
    labels = draw(st.permutations(range(0, 3 * (max(ids) + 1), 3)))
    return RandomGraph(
        edges=[(labels[a], labels[b]) for a, b in edges],
        activity={labels[node]: draw(ACTIVITIES) for node in ids},
        inputs=[labels[node] for node in inputs],
        outputs=[labels[node] for node in outputs],
        layers={labels[node]: layers[node] for node in ids},
        weights=[draw(WEIGHTS) for _ in edges] if weighted else None,
    )


def figure_1() -> PathGraph:
    """DESIGN section 3: a skip from input to output over four layers of four units."""
    edges: list[tuple[int, int]] = []
    active: list[int] = []
    last = 0
    node = 1
    for _ in range(4):
        hub, units = node, range(node + 1, node + 5)
        sources = [last] if last == 0 else range(last - 3, last + 1)
        edges += [(source, hub) for source in sources] + [(hub, unit) for unit in units]
        active += units
        last, node = node + 4, node + 5
    hub, output = node, node + 1
    edges += [(unit, hub) for unit in units] + [(hub, output), (0, output)]
    return PathGraph.from_edges(edges, activity=[float(n in active) for n in range(output + 1)])


def residual_blocks(blocks: int, width: int, hidden: int) -> PathGraph:
    """x <- x + W2 relu(W1 x), a hub for each of W1 and W2; only the hidden units are active."""
    size = hidden + width + 2  # hub, hidden units, hub, sums
    stream = np.arange(width)
    hub_in, hub_out = width, width + 1 + hidden
    inner = width + 1 + np.arange(hidden)
    sums = stream + size
    one_block = np.concatenate(
        [
            np.column_stack(np.broadcast_arrays(*pair))
            for pair in (
                (stream, hub_in),
                (hub_in, inner),
                (inner, hub_out),
                (hub_out, sums),
                (stream, sums),
            )
        ]
    )
    edges = one_block[None] + size * np.arange(blocks)[:, None, None]
    activity = np.zeros(width + blocks * size)
    activity[(inner + size * np.arange(blocks)[:, None]).ravel()] = 1.0
    return PathGraph.from_edges(edges.reshape(-1, 2), activity=activity)


def tenfold_chain(blocks: int) -> PathGraph:
    """Nodes 8 b, each joined to the next by a skip and by two layers of three units with a hub.

    A block has 9 + 1 paths and a branch of 2 active units, so there are 10**blocks paths,
    the average path length is 1.8 a block and the normalized one 1.5 (backward, 3 of 4 steps
    lead into the branch; likewise forward).
    """
    one_block = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (4, 5), (4, 6), (4, 7)]
    one_block += [(5, 8), (6, 8), (7, 8), (0, 8)]
    edges = np.array(one_block)[None] + 8 * np.arange(blocks)[:, None, None]
    activity = np.zeros(8 * blocks + 1)
    for unit in (1, 2, 3, 5, 6, 7):
        activity[unit:-1:8] = 1.0
    return PathGraph.from_edges(edges.reshape(-1, 2), activity=activity)


def tripling(first: int, stages: int) -> list[tuple[int, int]]:
    """Edges from node 0 to layers of three nodes with ids from `first`, all joined to the next.

    They end in one node, the last of 3 * stages + 1, which has 3**stages paths.
    """
    edges, before = [], [0]
    for node in range(first, first + 3 * stages, 3):
        layer = [node, node + 1, node + 2]
        edges += [(one, other) for one in before for other in layer]
        before = layer
    return edges + [(one, first + 3 * stages) for one in before]
