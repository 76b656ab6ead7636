"""What statistics of paths cost, as ratios to well-known work on the same graph in the same run.

Each row is a process of its own, so that the peak memory is the row's.

    python benchmarks/paths.py [--rows dag networkx exact distribution growth start process step]
        [--edges 100000000] [--write docs/performance.md]
"""

import argparse
import inspect
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # in place of this folder, whose coverage.py would hide the package

import numpy as np  # noqa: E402 - after the path is set

from benchmarks.plot import exponent, log_log  # noqa: E402
from benchmarks.steps import COMMAND_ROWS, STEPS, processes, training_step  # noqa: E402
from pathlen import backends  # noqa: E402
from pathlen.graph.path_graph import Kind, Layer, PathGraph  # noqa: E402

Row = dict[str, Any]
DEGREE = 25  # predecessors of a node, where the graph is not small
_CHUNK = 1 << 16


def random_dag(edges: int, window: int | None, degree: int = DEGREE) -> PathGraph:
    """Nodes with `degree` distinct random predecessors among all before, or the last `window`.

    The first `degree` nodes are the inputs; nodes that nobody reads are read by one output.
    Half of the others are active.
    """
    nodes = max(edges // degree, 2 * degree) + degree
    random = np.random.default_rng(0)
    indices = np.empty((nodes - degree, degree), dtype=np.int32)
    for first in range(degree, nodes, _CHUNK):
        node = np.arange(first, min(first + _CHUNK, nodes))[:, None]
        low = np.zeros_like(node) if window is None else np.maximum(node - window, 0)
        # one predecessor from each of `degree` stretches of equal length: distinct and ascending
        ends = np.arange(degree + 1) * (node - low) // degree
        steps = random.random((len(node), degree)) * np.diff(ends)
        indices[node[:, 0] - degree] = low + ends[:, :-1] + steps.astype(np.int64)
    read = np.zeros(nodes, dtype=np.bool_)
    read[indices.ravel()] = True
    unread = np.flatnonzero(~read).astype(np.int32)
    unread = unread[unread >= degree]
    return _with_terminals(indices, unread, nodes, degree, random)


def _with_terminals(
    indices: np.ndarray, unread: np.ndarray, nodes: int, degree: int, random: np.random.Generator
) -> PathGraph:
    starts = np.concatenate([np.zeros(degree, np.int64), np.arange(nodes - degree + 1) * degree])
    indptr = np.concatenate([starts, [starts[-1] + len(unread)]])
    kind = np.full(nodes + 1, Kind.UNIT, dtype=np.uint8)
    kind[:degree], kind[-1] = Kind.INPUT, Kind.OUTPUT
    activity = (random.random(nodes + 1) < 0.5).astype(np.float64)
    activity[:degree] = activity[-1] = 0.0
    counts = [degree, nodes - degree, 1]
    firsts = np.cumsum([0, *counts])
    rows = zip(("input", "units", "output"), firsts.tolist(), counts, strict=False)
    layers = tuple(Layer(name, name, first, count) for name, first, count in rows)
    flat = np.concatenate([indices.ravel(), unread])
    layer = np.repeat(np.arange(3, dtype=np.int32), counts)
    for array in (indptr, flat, activity, kind, layer):
        array.setflags(write=False)  # taken as they are, not copied
    return PathGraph(indptr, flat, activity, kind, layer, layers)


def processor_seconds(function: Callable[[], Any]) -> float:
    """Seconds of the processor that one call takes: waiting for other programs is not counted."""
    start = time.process_time()
    function()
    return time.process_time() - start


def beside(
    times: int, ours: Callable[[], Any], theirs: Callable[[], Any]
) -> tuple[float, float, float]:
    """Medians over pairs of runs, one right after the other: ours, theirs and the ratio.

    All that is compared here runs in one thread.
    """
    pairs = [(processor_seconds(ours), processor_seconds(theirs)) for _ in range(times)]
    mine, other = zip(*pairs, strict=True)
    return median(mine), median(other), median(one / two for one, two in pairs)


def measure_and_product(edges: int, window: int | None) -> Row:
    """`pathlen.measure(graph)`, all shares and layers, beside a scipy CSR matrix times a vector."""
    import scipy.sparse

    import pathlen

    pathlen.measure(random_dag(1000, None, 4))  # loads the compiled sweeps
    graph = random_dag(edges, window)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report = pathlen.measure(graph)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    shape = (graph.num_nodes, graph.num_nodes)
    matrix = scipy.sparse.csr_array(
        (np.ones(graph.num_edges), graph.indices, graph.indptr.astype(np.int32)), shape=shape
    )
    vector = np.random.default_rng(1).random(graph.num_nodes)
    times = 9 if edges <= 10**7 else 5
    ours, theirs, ratio = beside(times, lambda: pathlen.measure(graph), lambda: matrix @ vector)
    return {
        "edges": graph.num_edges,
        "predecessors": "all" if window is None else f"last {window}",
        "log10 paths": round(report.log10_path_count, 1),
        "seconds": ours,
        "product": theirs,
        "ratio": ratio,
        "MiB of the graph": before,
        "MiB peak": peak,
    }


def beside_networkx(edges: int) -> Row:
    """The averages alone by a dynamic program in Python over a networkx graph that is there."""
    import pathlen

    graph = random_dag(edges, None)
    report = pathlen.measure(graph)
    network = graph.to_networkx()
    ours, theirs, ratio = beside(
        3, lambda: pathlen.measure(graph), lambda: dynamic_program(network)
    )
    paths, lengths, walk = dynamic_program(network)
    assert abs(report.average_path_length - lengths / paths) < 1e-12 * lengths / paths
    assert abs(report.normalized_average_path_length - walk) < 1e-12 * walk
    return {"edges": graph.num_edges, "seconds": ours, "networkx": theirs, "ratio": 1 / ratio}


def dynamic_program(network: Any) -> tuple[int, float, float]:
    """What one writes in Python: paths to the last node, sum of their lengths, length of a walk."""
    import networkx

    paths: dict[int, int] = {}
    lengths: dict[int, float] = {}
    walks: dict[int, float] = {}
    for node in networkx.topological_sort(network):
        active = network.nodes[node]["activity"]
        before = list(network.predecessors(node))
        paths[node] = sum(paths[other] for other in before) if before else 1
        lengths[node] = active * paths[node] + sum(lengths[other] for other in before)
        mean = sum(walks[other] for other in before) / len(before) if before else 0.0
        walks[node] = active + mean
    last = len(paths) - 1
    return paths[last], lengths[last], walks[last]


def exactly(edges: int) -> Row:
    """`pathlen.measure(graph, exact=True)`, layers as fractions, beside the same in floats."""
    import pathlen

    graph = random_dag(edges, max(edges // 2300, 10 * DEGREE))  # at most about 10**1000 paths
    report = pathlen.measure(graph, exact=True)
    times = 5 if edges < 10**7 else 3
    exact, floats, ratio = beside(
        times, lambda: pathlen.measure(graph, exact=True), lambda: pathlen.measure(graph)
    )
    return {
        "backend": report.backend,
        "edges": graph.num_edges,
        "log10 paths": round(report.log10_path_count, 1),
        "seconds": exact,
        "floats": floats,
        "ratio": ratio,
        "MiB peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def distributions(model: str) -> Row:
    """The whole distribution of path lengths of a traced model."""
    import torch

    import pathlen
    from benchmarks.scale import llama70b
    from tests.vision import import_torchvision

    if model == "resnet152":
        import_torchvision()
        from torchvision.models import resnet152

        with torch.device("meta"):
            network, args, kwargs = resnet152(), torch.empty(1, 3, 224, 224), {}
        network.eval()
    else:
        network, args, kwargs = llama70b(80)
    graph = pathlen.trace(network, args, kwargs)
    solver = backends.get("numba")
    solver.distribution(random_dag(1000, None, 4), "uniform")
    row: Row = {"model": model, "nodes": graph.num_nodes, "edges": graph.num_edges}
    for weighting in ("uniform", "normalized"):
        start = time.process_time()
        shares = solver.distribution(graph, weighting)
        row[f"{weighting} s"] = time.process_time() - start
    row["lengths"] = len(shares)
    row["MiB peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def seconds_of_measure(edges: int, window: int | None) -> Row:
    """One point of the curve of growth of `pathlen.measure(graph)`."""
    import pathlen

    pathlen.measure(random_dag(1000, None, 4))
    graph = random_dag(edges, window)
    times = 9 if edges < 10**7 else 3
    seconds = median(processor_seconds(lambda: pathlen.measure(graph)) for _ in range(times))
    predecessors = "all" if window is None else f"last {window}"
    return {"edges": graph.num_edges, "predecessors": predecessors, "seconds": seconds}


def first_call(kind: str) -> Row:
    """Seconds of the first measurement of a process and of the second."""
    import torch

    import pathlen
    from pathlen.training import CifarResNet

    model, image = CifarResNet(20), torch.randn(1, 3, 32, 32)
    subject: Any = (model, image)
    if kind == "graph":
        subject = (random_dag(10**5, None),)
    seconds = []
    for _ in range(2):
        seconds.append(processor_seconds(lambda: pathlen.measure(*subject)))
    above = seconds[0] - seconds[1]
    return {"measured": kind, "first s": seconds[0], "second s": seconds[1], "above s": above}


FUNCTIONS: dict[str, Callable[..., Row]] = {
    "dag": measure_and_product,
    "networkx": beside_networkx,
    "exact": exactly,
    "distribution": distributions,
    "growth": seconds_of_measure,
    "start": first_call,
    "process": processes,
    "step": training_step,
}
TITLES = {
    "dag": "Measuring a graph beside a matrix-vector product",
    "networkx": "Measuring a graph beside a dynamic program in networkx",
    "exact": "Measuring a graph exactly",
    "distribution": "Distributions of path lengths",
    "growth": "Growth with edges",
    "start": "The first call of a process",
    "process": "A command from its beginning to its end",
    "step": "A training step with slopes",
}
WINDOW = 20_000


def tasks(most_edges: int) -> dict[str, list[tuple[Any, ...]]]:
    """Arguments of the rows of each table."""
    sizes = [10**power for power in range(4, 9) if 10**power <= most_edges]
    return {
        "dag": [(size, window) for size in sizes[-2:] for window in (WINDOW, None)],
        "networkx": [(min(10**6, most_edges),)],
        "exact": [(size,) for size in sizes if 10**5 <= size <= 10**7],
        "distribution": [("resnet152",), ("Llama 3 70B",)],
        "growth": [(size, WINDOW) for size in sizes],
        "start": [("graph",), ("model",)],
        "process": COMMAND_ROWS,
        "step": STEPS,
    }


def run_row(name: str, arguments: tuple[Any, ...]) -> Row:
    """One row, in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps([name, *arguments])]
    # with compiled modules, as pip leaves an installation
    own = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=own)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def write_page(page: Path, tables: dict[str, list[Row]]) -> None:
    """All tables, and the plot of growth."""
    parts = [_INTRODUCTION]
    for name, rows in tables.items():
        parts += [f"## {TITLES[name]}", inspect.getdoc(FUNCTIONS[name]) or "", _table(rows)]
        if name == "growth" and len(rows) > 1:
            points = [(row["edges"], row["seconds"]) for row in rows]
            label = f"seconds ~ edges^{exponent(points):.3f}"
            plot = log_log("Measuring a graph", "edges", "s", {label: points})
            (page.parent / "images" / "growth.svg").write_text(plot)
            parts.append(f"Fitted: {label}.\n\n![Seconds against edges](images/growth.svg)")
    page.write_text("\n\n".join(parts) + "\n")


_INTRODUCTION = f"""\
# Performance

What `python benchmarks/paths.py` measured on a machine of two cores, one thread, each row in a
process of its own. Other programs ran at the same time, so seconds are the processor's, without
waiting for them, but caches and memory were shared with them: read the ratios. Those are medians
over pairs of runs, one right after the other. Memory that a call takes anew is cleared by the
kernel, which is counted, too: at 10^8 edges that took from a tenth of a product to one and a half,
as other programs left memory.
"MiB peak" is the resident memory of the whole process. Random graphs have {DEGREE} predecessors a
node, drawn evenly over all nodes before it, or the last {WINDOW:,}: what a traced network looks
like, whose layers read the layers before them."""


def _table(rows: list[Row]) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_shown(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument("--edges", type=int, default=10**8, help="of the largest graph")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, *arguments = json.loads(options.one)
        print(json.dumps(FUNCTIONS[name](*arguments)))
        return
    tables: dict[str, list[Row]] = {}
    for name in options.rows:
        for arguments in tasks(options.edges)[name]:
            row = run_row(name, arguments)
            tables.setdefault(name, []).append(row)
            print(name, "  ".join(f"{key} {_shown(value)}" for key, value in row.items()))
    if options.write:
        write_page(options.write, tables)


if __name__ == "__main__":
    main()
