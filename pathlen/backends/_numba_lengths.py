"""The longest and the shortest path where activities are soft, so that their sums are rounded."""

import numpy as np

from pathlen.backends._compensated import add
from pathlen.backends._compiled import compiled


# L(v) = activity(v) + the largest L over predecessors (0 at an input); S, the smallest, likewise.
# One pass in topological order: O(n + e). A row of `state` is a pair, high + low, of each; pairs
# are settled, so comparing high parts first is right.
@compiled(error_model="numpy", nogil=True)
def sweep_lengths(indptr, indices, activity, outputs, state):  # type: ignore[no-untyped-def]
    """Both lengths over all outputs; `state` is float64[n, 4]."""
    for node in range(len(activity)):
        first, last = indptr[node], indptr[node + 1]
        longest, shortest = (0.0, 0.0), (0.0, 0.0)
        if first < last:
            longest, shortest = _extremes(indices, first, last, state)
        longest, shortest = _longer(longest, activity[node]), _longer(shortest, activity[node])
        state[node, 0], state[node, 1] = longest
        state[node, 2], state[node, 3] = shortest
    longest, shortest = _extremes(outputs, 0, len(outputs), state)
    return longest[0], shortest[0]


@compiled(inline="always", error_model="numpy")
def _extremes(nodes, first, last, state):  # type: ignore[no-untyped-def]
    """The largest and the smallest of the pairs of some nodes."""
    longest, longest_low, shortest, shortest_low = -np.inf, -np.inf, np.inf, np.inf
    for place in range(first, last):
        node = np.uint64(nodes[place])
        high, low = state[node, 0], state[node, 1]
        if high > longest or (high == longest and low > longest_low):
            longest, longest_low = high, low
        high, low = state[node, 2], state[node, 3]
        if high < shortest or (high == shortest and low < shortest_low):
            shortest, shortest_low = high, low
    return (longest, longest_low), (shortest, shortest_low)


@compiled(inline="always", error_model="numpy")
def _longer(length, activity):  # type: ignore[no-untyped-def]
    """A pair and a float, as a pair whose high part is the sum rounded."""
    high, low = add(length[0], length[1], activity, 0.0)
    return add(high, 0.0, low, 0.0)
