"""The call sites whose activity can change, and how it is read from the live model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pathlen.lowering import functions as lowered
from pathlen.lowering.activity import active_functions, per_channel
from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.steps import Step
from pathlen.lowering.values import Value
from pathlen.monitor.blends import Attribute, find_blend, find_elements
from pathlen.monitor.sources import LiveTensors, Source
from pathlen.tracing import module_path


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """A call site whose units are active or not by one element each of one tensor.

    Attributes:
        function: The site itself, to be evaluated where slopes alone do not decide.
        source: The tensor.
        nodes: int64[units], ids in the path graph.
        element: int64[units], the element that decides, of the tensor laid out flat.
        between: The slopes for which a blend is linear, None for a PReLU.
    """

    function: "Function"
    source: Source
    nodes: np.ndarray
    element: np.ndarray
    between: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A call site that is evaluated again as the lowering does it.

    Attributes:
        step: The call.
        function: What it is a function of, and how.
        reads: The constants that it is computed with.
        numbers: int64[units], ids in the path graph, -1 for what it leaves out.
    """

    step: Step
    function: lowered.Function
    reads: tuple[Value, ...]
    numbers: np.ndarray

    def functions(self, constants: Constants, tolerance: float) -> Tensor:
        """Which functions are active, in a shape that broadcasts to that of the result.

        Raises:
            ActivityError: A parameter is not a number.
        """
        active = active_functions(self.function.region, constants, tolerance)
        # without values (meta device) units are taken as active
        return torch.ones((), dtype=torch.bool) if active is None else active

    def split(self, shape: torch.Size, constants: Constants) -> lowered.Split:
        """How functions of this shape make units, with constants of the time of the trace."""
        return self.function.split(shape, constants)


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """A constant that decided on the structure of the graph.

    Attributes:
        value: The constant.
        tensor: What it was; None without values.
        sources: What it is computed from, with what these held.
    """

    value: Value
    tensor: Tensor | None
    sources: tuple[tuple[Source, Tensor], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """What to look at in a model.

    Attributes:
        slopes: Sites that are read directly.
        functions: Sites that are evaluated.
        watches: What must stay as it is.
        paths: Paths of the modules whose calls make up activations.
    """

    slopes: tuple[Slopes, ...]
    functions: tuple[Function, ...]
    watches: tuple[Watch, ...]
    paths: frozenset[str]
    _constants: Constants
    _sources: Mapping[Attribute, Source]

    def constants(self, values: Iterable[Value]) -> Constants:
        """Constants of the model as it is now; only the given ones can be asked for."""
        return self._constants.renewed(lambda *name: self._sources[name].read(), values)

    @property
    def traced(self) -> Constants:
        """Constants of the model as it was when it was lowered."""
        return self._constants


def find_sites(lowering: Lowering, live: LiveTensors) -> Sites:
    """Go through what the lowering did.

    Args:
        lowering: A finished one that was watched.
        live: Where the tensors of the model are.
    """
    assert lowering.steps is not None
    constants, sources = lowering.constants, dict[Attribute, Source]()
    numbers, counts = lowering.builder.numbers(), lowering.policy.counts("activation")
    slopes: list[Slopes] = []
    functions: list[Function] = []
    watches: dict[int, Watch] = {}
    paths: set[str] = set()
    for step in lowering.steps.taken:
        function = _function(step)
        reads = step.reads if function is None else _reads(step, function, constants)
        behind = constants.attributes_behind(reads)
        sources.update({key: live.find(tensor, key[1]) for key, tensor in behind.items()})
        if function is None:
            for value in reads:
                if id(value) not in watches and constants.attributes_behind([value]):
                    watches[id(value)] = _watch(value, sources, constants)
        elif counts:
            paths.update(module_path(call.node) for call in function.region.calls)
            site = Function(step, function, reads, numbers[step.nodes.start : step.nodes.stop])
            if behind and (site.numbers >= 0).any():
                found = _slopes(site, behind, sources, lowering)
                if found is None:
                    functions.append(site)
                else:
                    slopes.append(found)
                    watches |= _places(site, behind, sources)
    return Sites(
        tuple(slopes),
        tuple(functions),
        tuple(watches.values()),
        frozenset(paths),
        constants,
        sources,
    )


def value_of(value: Value, constants: Constants) -> Tensor | None:
    """A constant, None where it has no values."""
    try:
        return constants.of(value)
    except UnknownConstantError:
        return None


def _function(step: Step) -> lowered.Function | None:
    """What the result of a call is an activation of; None where it is none, or made of others."""
    return step.result.function if step.program is None and isinstance(step.result, Value) else None


def _reads(step: Step, function: lowered.Function, constants: Constants) -> tuple[Value, ...]:
    """The constants of a function: those that were looked at, if all have values.

    The evaluation stops at the first that has none; then any constant on the way may count.
    """
    if all(value_of(value, constants) is not None for value in step.reads):
        return step.reads
    return tuple(function.region.constants)


def _watch(value: Value, sources: Mapping[Attribute, Source], constants: Constants) -> Watch:
    own = constants.attributes_behind([value])
    kept = tuple((sources[key], tensor.detach().clone()) for key, tensor in own.items())
    tensor = value_of(value, constants)
    return Watch(value, None if tensor is None else tensor.clone(), kept)


def _places(
    site: Function, behind: Mapping[Attribute, Tensor], sources: Mapping[Attribute, Source]
) -> dict[int, Watch]:
    """The indices that say where the slopes of a site lie: other ones are other slopes."""
    kept = [
        (sources[key], tensor.detach().clone())
        for key, tensor in behind.items()
        if not tensor.is_floating_point()
    ]
    # no value is compared: it is made of slopes, too
    return {id(site): Watch(site.reads[0], None, tuple(kept))} if kept else {}


def _slopes(
    site: Function,
    behind: Mapping[Attribute, Tensor],
    sources: Mapping[Attribute, Source],
    lowering: Lowering,
) -> Slopes | None:
    """A site as one that is read directly, None where it has to be evaluated.

    One tensor decides which units are active; others may say where its elements lie, by indices.
    """
    numbers = [key for key, tensor in behind.items() if tensor.is_floating_point()]
    if len(numbers) != 1:
        return None
    (key,) = numbers
    constants, tolerance = lowering.constants, lowering.policy.tolerance
    alive, call = site.numbers >= 0, site.step.call
    if call.name == "aten.prelu" and call["self"] is site.function.region.entry:
        found = find_elements(call["weight"], key, constants)
        if found is None:
            return None
        split = site.split(site.functions(constants, tolerance).shape, constants)
        element = split.of_units(per_channel(found, len(call.shape)))[alive]
        between = None
    else:
        blend = find_blend(site.function.region, site.reads, key, constants)
        between = None if blend is None else blend.linear_between(tolerance)
        if blend is None or between is None:
            return None
        split = site.split(blend.element.shape, constants)
        if len(np.unique(split.entries)) < len(split.entries):
            return None  # equal slopes would make one unit of several: the graph depends on them
        element = split.of_units(blend.element)[alive]
    if (element < 0).any():
        return None
    return Slopes(site, sources[key], site.numbers[alive], element, between)
