"""PyTorch: a topological generation at a time, on the CPU or on a GPU.

Each generation is a few gathers and scatters, so wide graphs keep a GPU busy and deep narrow ones
do not: for those, and on the CPU in general, `numba` is the faster one.
"""

import numpy as np
import torch
from torch import Tensor

from pathlen.backends._torch_distribution import distribution
from pathlen.backends._torch_waves import Waves, aligned, longest, sums, total
from pathlen.backends.protocol import (
    Averages,
    Capabilities,
    FloatArray,
    IntArray,
    Scaled,
    Solution,
    check_weighting,
    float_solution,
    start_chances,
    total_of,
)
from pathlen.errors import BackendError
from pathlen.graph import Kind, PathGraph


class TorchBackend:
    """Wavefronts of tensors in float64.

    The built-in backend "torch" runs on the CPU. One for another device is registered first:

        pathlen.backends.register(pathlen.backends.TorchBackend("cuda"))
        pathlen.measure(graph, backend="torch-cuda")

    Args:
        device: Where the work is done; it must know float64.
        name: What `get` finds it by; by default "torch" for the CPU, else "torch-" and the device.

    Raises:
        BackendError: There is no such device here, or it knows no float64.
    """

    capabilities = Capabilities(
        exact=False,
        summary="wavefronts of tensors in float64, on the CPU or a GPU",
        averages=True,
        distribution=True,
    )

    def __init__(self, device: str | torch.device = "cpu", name: str | None = None) -> None:
        try:
            self.device = torch.zeros((), dtype=torch.float64, device=device).device
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise BackendError(f"device {device!r} cannot hold float64 here: {reason}") from error
        if self.device.type == "meta":
            raise BackendError(f"device {device!r} holds no values; choose another")
        default = "torch" if self.device.type == "cpu" else f"torch-{torch.device(device)}"
        self.name = name or default

    @torch.inference_mode()
    def solve(self, graph: PathGraph, direction: str = "backward") -> Solution:
        """Measure a graph in O(nodes + edges); see `Backend.solve`.

        Walks, path counts and weighted path counts are columns of one recurrence.
        """
        chances = start_chances(graph, direction)
        forth = Waves.of(graph, self.device)
        back = Waves.of(graph, self.device, reverse=True)
        walks_forth = direction == "forward"
        to_nodes = _counts(graph, forth, chances if walks_forth else None)
        from_nodes = _counts(graph, back, None if walks_forth else chances)
        walk = forth.column(to_nodes, -1) if walks_forth else back.column(from_nodes, -1)
        lengths = np.stack([graph.activity, -graph.activity], axis=1)
        ends = graph.kind == Kind.OUTPUT
        found = forth.array(longest(forth, forth.tensor(lengths)))[ends].max(axis=0)
        magnitudes = None
        if graph.weights is not None:
            magnitudes = forth.column(to_nodes, 1), back.column(from_nodes, 1)
        return float_solution(
            graph,
            direction,
            from_inputs=forth.column(to_nodes, 0),
            to_outputs=back.column(from_nodes, 0),
            walk_share=_float(walk.mantissa, walk.exponent),
            longest=found[0],
            shortest=-found[1],
            magnitudes=magnitudes,
        )

    @torch.inference_mode()
    def averages(self, graph: PathGraph, direction: str = "backward") -> Averages:
        """Both averages in one sweep; see `HasAverages`."""
        chances = start_chances(graph, direction)
        waves = Waves.of(graph, self.device, reverse=direction == "forward")
        counts, mean_length, expected = _mean_lengths(waves, waves.tensor(graph.activity))
        starts = chances > 0
        paths, log10_paths = total_of(counts, starts)
        share = _float(
            counts.mantissa[starts] / paths.mantissa[0], counts.exponent[starts] - paths.exponent[0]
        )
        return Averages(
            direction=direction,
            average=float(np.sum(share * mean_length[starts])),
            normalized_average=float(np.sum(chances[starts] * expected[starts])),
            path_count=None,
            log10_path_count=log10_paths,
        )

    @torch.inference_mode()
    def distribution(
        self,
        graph: PathGraph,
        weighting: str = "uniform",
        direction: str = "backward",
        memory_limit: int | None = None,
    ) -> FloatArray:
        """Lengths of paths or walks; see `HasDistribution`."""
        check_weighting(graph, weighting)
        chances = start_chances(graph, direction)
        reverse = direction == "forward" and weighting == "normalized"
        waves = Waves.of(graph, self.device, reverse=reverse)
        if weighting == "normalized":
            return distribution(graph, waves, None, chances, memory_limit)
        by_weights = weighting == "magnitude"
        counts = waves.column(_counts(graph, waves, None), int(by_weights))
        ends = graph.kind == Kind.OUTPUT
        paths, _ = total_of(counts, ends)
        final = np.zeros(graph.num_nodes)
        final[ends] = _float(
            counts.mantissa[ends] / paths.mantissa[0], counts.exponent[ends] - paths.exponent[0]
        )
        weights = graph.weights if by_weights else None
        return distribution(graph, waves, (counts, weights), final, memory_limit)


def _float(mantissa: FloatArray, exponent: IntArray) -> FloatArray:
    """Mantissa * 2**exponent; what is too small for float64 becomes 0."""
    with np.errstate(under="ignore"):
        value: FloatArray = np.ldexp(mantissa, np.clip(exponent, -5000, 5000).astype(np.int32))
    return value


def _counts(graph: PathGraph, waves: Waves, chances: FloatArray | None) -> tuple[Tensor, Tensor]:
    """Ways to every node: mantissas and exponents, (n, k) by number.

    Columns: their number; that by weights, if the graph has any; and as a walk, if asked for.

    Args:
        graph: The path graph.
        waves: From one of its ends.
        chances: To start a walk at each node; None leaves the walk out.
    """
    begin = np.zeros(graph.num_nodes)
    begin[: waves.ends[0]] = 1.0
    columns = 1 + (graph.weights is not None)
    starts, divisors, weights = np.stack([begin] * columns, axis=1), None, None
    if graph.weights is not None:
        weights = np.ones((graph.num_edges, columns + (chances is not None)))
        weights[:, 1] = graph.weights[waves.edge_order]
    if chances is not None:  # a walker leaves a node along any of its edges
        starts = np.column_stack([starts, chances[waves.order]])
        divisors = np.ones_like(starts)
        divisors[:, -1] = np.maximum(waves.gives, 1)
    put = waves.put
    return sums(
        waves,
        put(starts),
        None if divisors is None else put(divisors),
        None if weights is None else put(weights),
    )


# F(v) = 1 without predecessors u, else the sum of F(u)
# D(v) = activity(v) + the sum of F(u) D(u) / F(v), the mean length of the ways to v
# E(v) = activity(v) + the mean of E(u), the length that a walk from v expects
def _mean_lengths(waves: Waves, activity: Tensor) -> tuple[Scaled, FloatArray, FloatArray]:
    """F, D and E of each node."""
    mantissa = torch.full_like(activity, 0.5).unsqueeze(1)
    exponent = torch.ones_like(mantissa, dtype=torch.int64)
    lengths = torch.stack([activity, activity], dim=1)  # D and E
    reads = waves.put(np.maximum(waves.reads, 1).astype(np.float64)).unsqueeze(1)
    for wave in waves.waves:
        here = slice(wave.first, wave.last)
        terms = mantissa.index_select(0, wave.giving)
        terms, highest = aligned(terms, exponent.index_select(0, wave.giving), wave)
        mean, expected = lengths.index_select(0, wave.giving).split(1, dim=1)
        found = total(torch.cat([terms, terms * mean, expected], dim=1), wave)
        count, moment, walked = found.split(1, dim=1)
        lengths[here] += torch.cat([moment / count, walked / reads[here]], dim=1)
        mantissa[here], shift = torch.frexp(count)
        exponent[here] = highest + shift
    counts = waves.scaled(mantissa.squeeze(1), exponent.squeeze(1))
    both = waves.array(lengths)
    return counts, both[:, 0], both[:, 1]


BACKEND = TorchBackend()
