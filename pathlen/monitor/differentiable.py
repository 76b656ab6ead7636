"""An average path length as a differentiable function of the activities.

Both averages are linear in the activities: average = sum of activity(u) * c(u), where the share
c(u) of the paths that pass u depends on the structure alone (docs/algorithms/differentiable.md).
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathlen import backends
from pathlen.backends.protocol import Solution, check_weighting
from pathlen.errors import ActivityError
from pathlen.graph.path_graph import Kind, PathGraph

_SHARES = {"uniform": "path_share", "normalized": "walk_share", "magnitude": "magnitude_share"}


class DifferentiableAverage(nn.Module):
    """The average path length of a graph, for activities that gradients flow to.

    The graph is solved once; every call is one dot product in float64, whose gradient with respect
    to the activity of a unit u is exactly its share c(u).

    Args:
        graph: The path graph.
        weighting: "uniform" (every path the same), "normalized" (the random walk) or "magnitude"
            (every path the product of the weights of its edges).
        direction: Where the random walk goes: "backward" or "forward".
        backend: Name of the solver, "auto" to let pathlen choose.
        check: Whether to look at the values of the activities in each call. On a GPU that waits
            for them; in a training loop whose activities are in [0, 1] by construction (a sigmoid,
            a clamp) it can be left out.

    Attributes:
        shares: float64[num_nodes] buffer, c of every node; 0 at hubs, which have no activity of
            their own. It moves with `.to(device)`, stays float64 under `.half()` and its like,
            and is not part of the state dict: the graph determines it.

    Raises:
        BackendError: There is no such weighting, direction or backend, or the graph has no weights.
    """

    shares: Tensor
    _units: Tensor

    def __init__(
        self,
        graph: PathGraph,
        weighting: str = "uniform",
        direction: str = "backward",
        *,
        backend: str = "auto",
        check: bool = True,
    ) -> None:
        super().__init__()
        check_weighting(graph, weighting)
        solver = backends.choose(graph)[0] if backend == "auto" else backends.get(backend)
        shares = _shares(solver.solve(graph, direction), weighting)
        hubs = graph.kind == Kind.HUB
        self.register_buffer(
            "shares", torch.from_numpy(np.where(hubs, 0.0, shares)), persistent=False
        )
        is_unit = np.flatnonzero(graph.kind == Kind.UNIT)
        self.register_buffer("_units", torch.from_numpy(is_unit), persistent=False)
        self.weighting = weighting
        self.direction = direction
        self.check = check
        self._hubs = torch.from_numpy(hubs)
        contributions = graph.activity * shares
        # What layers add whose activities are not given: those of the graph are kept for them.
        self._of_terminals = float(np.sum(contributions[graph.kind != Kind.UNIT]))
        self._of_layer = np.bincount(graph.layer, contributions, len(graph.layers))
        self._layers = {
            layer.name: (row, torch.from_numpy(units))
            for row, layer in enumerate(graph.layers)
            if len(units := _units_of(graph, row))
        }

    def forward(self, activity: Tensor | Mapping[str, Tensor]) -> Tensor:
        """The average path length of the graph with these activities.

        Args:
            activity: In [0, 1]; in one of three forms:
                [num_nodes], one a node, 0 at hubs;
                [num_units], one for each node of kind `Kind.UNIT`, in order: inputs and outputs
                keep the activities that they have in the graph (0 if traced);
                a mapping from names of layers to the activities of their units, [units], or one
                for all of them, []: layers that are not named keep those of the graph.

        Returns:
            The average, without dimensions, of the activities' dtype and on their device.

        Raises:
            ActivityError: Activities are no floating-point tensors, of the wrong length, or on
                several devices; an unknown layer (the nearest names are given); and if `check`,
                values outside [0, 1] or NaN, or other than 0 at hubs.
        """
        if isinstance(activity, Mapping):
            return self._of_layers(activity)
        _require_tensor(activity, "activity")
        num_nodes, num_units = len(self.shares), len(self._units)
        if activity.shape == (num_nodes,):
            self._check(activity, "node", self._hubs)
            return self._average([(self.shares, activity)], 0.0)
        if activity.shape == (num_units,):
            self._check(activity, "unit")
            return self._average([(self.shares[self._units], activity)], self._of_terminals)
        raise ActivityError(
            f"activity has shape {tuple(activity.shape)}; give one value a node, ({num_nodes},),"
            f" one a unit, ({num_units},), or a mapping from layers to values"
        )

    def extra_repr(self) -> str:
        """Say which average it is, and of how many nodes."""
        return f"{self.weighting}, {self.direction}, num_nodes={len(self.shares)}"

    def _of_layers(self, activity: Mapping[str, Tensor]) -> Tensor:
        """The average, with the units of some layers given."""
        if not activity:
            raise ActivityError("the mapping from layers to activities is empty")
        given, rows = [], []
        for name, values in activity.items():
            if name not in self._layers:
                near = difflib.get_close_matches(name, self._layers, n=3, cutoff=0.3)
                raise ActivityError(
                    f"no layer with units is named {name!r}; nearest are"
                    f" {', '.join(map(repr, near or list(self._layers)[:3]))}"
                )
            row, units = self._layers[name]
            _require_tensor(values, f"layer {name!r}: activity")
            if values.shape not in ((), (len(units),)):
                raise ActivityError(
                    f"layer {name!r} has {len(units)} units; give one activity or {len(units)},"
                    f" not a tensor of shape {tuple(values.shape)}"
                )
            self._check(values, f"layer {name!r}, unit")
            given.append((self.shares[units.to(self.shares.device)], values))
            rows.append(row)
        return self._average(given, float(np.delete(self._of_layer, rows).sum()))

    def _average(self, given: list[tuple[Tensor, Tensor]], rest: float) -> Tensor:
        """Sum of shares * activities over what is given, and what the rest of the graph adds."""
        devices = {activity.device for _, activity in given}
        if len(devices) > 1:
            raise ActivityError(
                "activities lie on several devices, "
                + ", ".join(sorted(map(str, devices)))
                + "; bring them to one"
            )
        device = devices.pop()
        terms = [(shares.to(device) * activity.double()).sum() for shares, activity in given]
        dtype = given[0][1].dtype
        for _, activity in given:
            dtype = torch.promote_types(dtype, activity.dtype)
        return (torch.stack(terms).sum() + rest).to(dtype)

    def _check(self, activity: Tensor, what: str, hubs: Tensor | None = None) -> None:
        """Raise ActivityError for values that are no activities, if values are to be checked."""
        if not self.check:
            return
        values = activity.detach().cpu()
        wrong = ~((values >= 0) & (values <= 1))  # NaN compares with nothing
        if wrong.any():
            where = int(wrong.reshape(-1).nonzero()[0])
            raise ActivityError(
                f"activities must lie in [0, 1]; {what} {where} has"
                f" {values.reshape(-1)[where].item()}; clamp them, or take a sigmoid"
            )
        if hubs is not None and (active := hubs & (values != 0)).any():
            raise ActivityError(
                f"hubs must have activity 0; node {int(active.nonzero()[0])} does not"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moves the shares where the module goes, but does not round them."""
        precise = self.shares
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.shares = precise.to(self.shares.device)
        return self


def _shares(solution: Solution, weighting: str) -> np.ndarray:
    """The share of every node: float64[n]."""
    return np.asarray(getattr(solution, _SHARES[weighting]), dtype=np.float64)


def _units_of(graph: PathGraph, row: int) -> np.ndarray:
    """Nodes of a layer that can have an activity: neither hubs nor outputs."""
    units = graph.units_of(graph.layers[row])
    inner: np.ndarray = units[graph.kind[units] != Kind.OUTPUT]
    return inner


def _require_tensor(activity: object, what: str) -> None:
    if not isinstance(activity, Tensor) or not activity.is_floating_point():
        kind = activity.dtype if isinstance(activity, Tensor) else type(activity).__name__
        raise ActivityError(f"{what} must be a tensor of floating-point numbers, not {kind}")
