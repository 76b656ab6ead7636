"""Read the depth of a model while it is trained: it is traced once, and each reading is cheap."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathlen import backends
from pathlen.errors import MonitorError, PathlenError
from pathlen.graph.path_graph import PathGraph
from pathlen.lowering.program import lower_watched
from pathlen.monitor.functions import FunctionReader, WatchReader
from pathlen.monitor.sites import find_sites
from pathlen.monitor.slopes import SlopeReader, Total
from pathlen.monitor.sources import LiveTensors, Structure
from pathlen.policy import DEFAULT_POLICY, Policy
from pathlen.report.report import Report
from pathlen.tracing import trace_model
from pathlen.tracing.state import on_cpu
from pathlen.wrappers import unwrapped


@dataclass(frozen=True, slots=True)
class DepthReading:
    """What `DepthMonitor.update` returns: the numbers that `pathlen.measure` would give.

    Attributes:
        average_path_length: Mean length over all paths.
        normalized_average_path_length: Expected length of the random walk.
        num_active: Number of active units.
        active_units: Active units of each layer where a nonlinearity is or, once linearized,
            was, by the layer's name, in order.
    """

    average_path_length: float
    normalized_average_path_length: float
    num_active: int
    active_units: Mapping[str, int]


class DepthMonitor:
    """Follows the depth of a model whose slopes change.

    The model is traced and its graph solved once. `update` then reads the slopes of the live model,
    wherever they are, and returns what `pathlen.measure` would, for the cost of a few small
    operations (docs/algorithms/monitor.md). Slopes are found by their places in the model, so
    that parameters may be replaced, moved to another device or loaded from a checkpoint.

    Slopes of PReLUs and of blends alpha * x + (1 - alpha) * phi(x) are read directly. Other
    activations with parameters or buffers are evaluated again in each update. Those without are
    constant. Where indices or masks that decide on the graph itself change, the recorded program
    is lowered again; the model is never run.

    Args:
        model: The model. It is run once, in eval mode, and left as it was. Wrappers for several
            devices and compilation are seen through: names are those of the model inside.
        args: A tensor, or a tuple of positional arguments. Only shapes and dtypes matter.
        kwargs: Keyword arguments.
        policy: What counts as a nonlinearity.
        outputs: See `pathlen.trace`.
        input_axis: See `pathlen.trace`.
        backend: Name of the solver, "auto" to let pathlen choose.

    Attributes:
        graph: The path graph, with the activities of the time when it was made.

    Raises:
        MonitorError: It is no module, or its program reads values of tensors, so that its graph
            may be another one each time.
        PathlenError: Whatever `pathlen.trace` raises.
    """

    graph: PathGraph

    def __init__(
        self,
        model: nn.Module,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        policy: Policy = DEFAULT_POLICY,
        outputs: Any = None,
        input_axis: int | Mapping[str, int] | None = None,
        backend: str = "auto",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise MonitorError(
                f"a monitor follows a torch.nn.Module, not {type(model).__name__}: slopes are read"
                " where the modules hold them"
            )
        model = unwrapped(model)
        self._solver = None if backend == "auto" else backends.get(backend)
        self._policy = policy
        self._input_axis = input_axis
        self._model = model
        recording = trace_model(model, args, kwargs, outputs)
        if recording.needs_values:
            raise MonitorError(
                "the program of this model reads values of its tensors, so its graph can change"
                " with its parameters; call pathlen.measure instead. "
                + "; ".join(recording.attempts)
            )
        live = LiveTensors(model)
        self._attributes = {
            name: live.find(tensor, name) for name, tensor in recording.attributes.items()
        }
        # The tensors themselves are not kept: those of the model may be replaced.
        self._recording = dataclasses.replace(recording, attributes={})
        with torch.no_grad(), on_cpu():
            paths = self._prepare()
        self._structure = Structure(model, paths)

    def update(self) -> DepthReading:
        """Read the model as it is now.

        Raises:
            MonitorError: A module or the shape of a slope is no longer what was traced.
            ActivityError: A slope is not a number.
        """
        self._structure.require_unchanged()
        with torch.no_grad(), on_cpu():
            reading = self._read()
            if reading is None:
                self._prepare()
                reading = self._read()
        if reading is None:
            raise MonitorError("the model changes while it is read; read it between two steps")
        return reading

    def slope_centrality(self, weighting: str = "normalized") -> dict[str, Tensor]:
        """The share of paths, or chance of the walk, that passes the units of each slope.

        Args:
            weighting: "normalized" or "uniform".

        Returns:
            By parameter name, float64 of the parameter's shape: an element has the centrality of
            the units that it makes linear, added up. Slopes that are not read directly are left
            out.

        Raises:
            PathlenError: There is no such weighting.
        """
        share = self._share(weighting)
        found: dict[str, Tensor] = {}
        for site in self._sites.slopes:
            size = site.source.shape.numel()
            own = np.bincount(site.element, weights=share[site.nodes], minlength=size)
            before = found.get(site.source.name)
            added = torch.from_numpy(own).view(site.source.shape)
            found[site.source.name] = added if before is None else before + added
        return found

    def follows(self, name: str) -> bool:
        """Whether the model computes with a tensor of this name, as "relu.weight"."""
        return any(source.name == name for source in self._attributes.values())

    def fixed_part(self, weighting: str = "normalized") -> float:
        """What units without directly read slopes add to an average, as the graph was made.

        Raises:
            PathlenError: There is no such weighting.
        """
        activity = self.graph.activity.copy()
        for site in self._sites.slopes:
            activity[site.nodes] = 0.0
        return float(self._share(weighting) @ activity)

    def _share(self, weighting: str) -> np.ndarray:
        if weighting not in ("uniform", "normalized"):
            raise PathlenError(f"weighting={weighting!r}; choose 'normalized' or 'uniform'")
        share: np.ndarray = self._shares[("uniform", "normalized").index(weighting)]
        return share

    def __repr__(self) -> str:
        """Say what is followed, and how."""
        direct = sum(len(reader.sites) for reader in self._slopes)
        return (
            f"DepthMonitor({type(self._model).__name__}, {direct} call sites with slopes read"
            f" directly, {len(self._functions)} evaluated, {self.graph!r})"
        )

    def _prepare(self) -> frozenset[str]:
        """Lower the program with the parameters of now; returns the modules with activations."""
        attributes = {name: source.read() for name, source in self._attributes.items()}
        recording = dataclasses.replace(self._recording, attributes=attributes)
        self.graph, lowering, _ = lower_watched(recording, self._policy, self._input_axis)
        solver = self._solver or backends.choose(self.graph)[0]
        solution = solver.solve(self.graph)
        shares = np.array([solution.path_share, solution.walk_share], dtype=np.float64)
        sites, tolerance = find_sites(lowering, LiveTensors(self._model)), self._policy.tolerance
        self._sites, self._shares = sites, shares
        prelus = [site for site in sites.slopes if site.between is None]
        blends = [site for site in sites.slopes if site.between is not None]
        self._slopes = [SlopeReader(own, shares, tolerance) for own in (prelus, blends) if own]
        self._functions = [
            FunctionReader(site, sites.traced, shares, tolerance) for site in sites.functions
        ]
        self._fallbacks = {
            site: FunctionReader(site.function, sites.traced, shares, tolerance) for site in blends
        }
        self._watches = WatchReader(sites.watches)
        report = Report.build(self.graph, solution, backend=solver.name, seconds={}, exact=False)
        self._set_rest(shares, report)
        return sites.paths

    def _set_rest(self, shares: np.ndarray, report: Report) -> None:
        """What does not change: the units of all other layers, and the names of the layers."""
        nodes = [site.nodes for site in self._sites.slopes]
        nodes += [site.numbers[site.numbers >= 0] for site in self._sites.functions]
        layer_of = [int(self.graph.layer[own[0]]) if len(own) else -1 for own in nodes]
        activity = self.graph.activity.copy()
        activity[np.concatenate([np.empty(0, dtype=np.int64), *nodes])] = 0.0
        self._rest = (shares @ activity).tolist()
        counts = np.bincount(self.graph.layer[activity > 0], minlength=len(self.graph.layers))
        row = {layer.name: number for number, layer in enumerate(self.graph.layers)}
        names = [
            layer.name
            for layer in report.layers
            if layer.activation or layer.active or row[layer.name] in layer_of
        ]
        self._names = names
        self._rest_active = [int(counts[row[name]]) for name in names]
        place = {row[name]: number for number, name in enumerate(names)}
        sites = [*self._sites.slopes, *self._sites.functions]
        self._place = {
            site: place.get(layer, -1) for site, layer in zip(sites, layer_of, strict=True)
        }
        self._places = {
            reader: [self._place[site] for site in reader.sites] for reader in self._slopes
        }

    def _read(self) -> DepthReading | None:
        """One reading, None where the graph itself has to be made anew."""
        read = [(reader, *item) for reader in self._slopes for item in reader.read()]
        flags = self._watches.read()
        numbers = _arrived([*(vector for _, _, vector in read), *flags])
        if any(flag for (flag,) in numbers[len(read) :]):
            values = [watch.value for watch in self._watches.watches]
            if not self._watches.still_hold(self._sites.constants(values)):
                return None
        totals: list[tuple[Sequence[int], Total]] = []
        again: list[tuple[Any, FunctionReader]] = []
        for (reader, part, _), found in zip(read, numbers, strict=False):
            total = part.total(found)
            if total.doubtful:
                sites = [reader.sites[number] for number in part.numbers]
                again += [(site, self._fallbacks[site]) for site in sites]
            else:
                places = self._places[reader]
                whole = len(part.numbers) == len(places)
                totals.append((places if whole else [places[n] for n in part.numbers], total))
        again += zip(self._sites.functions, self._functions, strict=True)
        if again:
            values = [value for _, function in again for value in function.site.reads]
            constants = self._sites.constants(values)
            for site, function in again:
                evaluated = function.read(constants)
                if evaluated is None:
                    return None
                totals.append(([self._place[site]], evaluated))
        return self._reading(totals)

    def _reading(self, totals: Sequence[tuple[Sequence[int], Total]]) -> DepthReading:
        """Everything added up."""
        average, normalized = self._rest
        active = self._rest_active.copy()
        for places, total in totals:
            average += total.average
            normalized += total.normalized
            for place, count in zip(places, total.active, strict=True):
                if count:
                    active[place] += count
        by_layer = MappingProxyType(dict(zip(self._names, active, strict=True)))
        return DepthReading(average, normalized, sum(active), by_layer)


def _arrived(vectors: Sequence[Tensor]) -> list[list[float]]:
    """The numbers of vectors on any devices; waits once for each device."""
    numbers: list[list[float]] = [[] for _ in vectors]
    for device in dict.fromkeys(vector.device for vector in vectors):
        own = [number for number, vector in enumerate(vectors) if vector.device == device]
        flat = torch.cat([vectors[number] for number in own]).tolist()
        first = 0
        for number in own:
            last = first + len(vectors[number])
            numbers[number] = flat[first:last]
            first = last
    return numbers
