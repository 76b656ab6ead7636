"""Where a program applies activations, and what to take from its calls to see them act.

The lowering knows of each call which value of the program its result is an activation of, and to
which unit every element of the result belongs. So a run of the program needs no module, no hook
and no list of activations: it needs the tensor behind that value when the first call reads it, and
the tensor that the last call returns.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pathlen.errors import PathlenError
from pathlen.graph.path_graph import PathGraph
from pathlen.lowering.choices import CHOICES
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import compact
from pathlen.lowering.program import lower_watched
from pathlen.lowering.rules import find_rule, kind_of_call
from pathlen.lowering.steps import Step
from pathlen.lowering.values import Call, Value
from pathlen.policy import Policy
from pathlen.tracing import Recording

SILENT = (torch.ops.aten.detach.default, torch.ops.aten.lift_fresh.default)
"""Calls that fake tensors make and real ones do not, or the other way round."""


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One call of an activation.

    Attributes:
        number: Of the site, in the order of the program.
        layer: Name of its layer in the path graph.
        nodes: int64[units], ids of its units in the path graph, ascending.
        units: Position in `nodes` of the unit of each element of the result, the number of units
            where there is none; of length 1 along axes on which units do not vary.
        entry: Number of the value that it is an activation of.
        masked: Whether the program puts infinities into that value, which say what to leave out.
        masks: Whether the call puts them into its result, beside the elements that it lets through.
    """

    number: int
    layer: str
    nodes: np.ndarray
    units: Tensor
    entry: int
    masked: bool
    masks: bool


@dataclass(frozen=True, slots=True)
class Capture:
    """An operand to be kept until the sites that it enters have been seen.

    Attributes:
        leaf: Its position among the leaves of the arguments, named by the schema of the operator.
        entry: Number of the value.
        copied: Whether the program may write to it before it has been used.
    """

    leaf: int
    entry: int
    copied: bool


@dataclass(frozen=True, slots=True, eq=False)
class Inner:
    """What a call was decomposed to, run beside it on the same operands.

    Attributes:
        recording: The program.
        leaves: Positions of its inputs among the leaves of the arguments of the call.
    """

    recording: Recording
    leaves: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """What to take from one call.

    Attributes:
        captures: Operands to be kept.
        sites: The activations whose results it returns.
        inner: What it was decomposed to, if activations are in there.
    """

    captures: tuple[Capture, ...] = ()
    sites: tuple[Site, ...] = ()
    inner: Inner | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How to look at the activations of a program of certain shapes.

    Attributes:
        recording: The program.
        writes: Whether it writes to any tensor in place.
        written: Parameters, buffers and other tensors from outside that it may write to.
        graph: Its path graph.
        sites: Its activations, in order.
        watches: What to take from its calls, by the node of the call.
        uses: Number of sites that each entry enters.
        unseen: Layers with active units that no site has, and how many these are.
    """

    recording: Recording
    writes: bool
    written: tuple[Tensor, ...]
    graph: PathGraph
    sites: tuple[Site, ...]
    watches: Mapping[fx.Node, Watch]
    uses: Mapping[int, int]
    unseen: Mapping[str, int]


def make_plan(
    recording: Recording, policy: Policy, input_axis: int | Mapping[str, int] | None
) -> Plan:
    """Lower a program, and find its activations.

    Args:
        recording: The program.
        policy: What counts; activations must.
        input_axis: See `pathlen.trace`.

    Raises:
        PathlenError: The policy does not count activations, or whatever `pathlen.trace` raises.
    """
    if not policy.counts("activation"):
        raise PathlenError(
            f"Policy(count={sorted(policy.count)}) does not count activations, and nothing else"
            " can be seen to act on data; leave 'activation' in"
        )
    graph, lowering, _ = lower_watched(recording, policy, input_axis)
    finder = _Finder(recording, graph, lowering)
    for step in lowering.steps.taken if lowering.steps is not None else ():
        finder.add(step)
    return finder.plan()


class _Finder:
    """Collects what a plan is made of, one step of the lowering after another."""

    def __init__(self, recording: Recording, graph: PathGraph, lowering: Lowering) -> None:
        assert lowering.steps is not None
        self._recording = recording
        self._graph = graph
        self._steps = {step.call.node: step for step in lowering.steps.taken}
        self._numbers = lowering.builder.numbers()
        self._caller = {program.graph: node for node, program in lowering.steps.programs.items()}
        self._order = {node: number for number, node in enumerate(recording.graph.nodes)}
        self._writes = sorted(
            self._position(node)[0]
            for graph in (recording.graph, *self._caller)
            for node in graph.nodes
            if is_mutable(node)
        )
        self._readers = self._first_readers()
        self._entries: dict[int, int] = {}
        self._sites: list[Site] = []
        self._captures: dict[fx.Node, dict[int, Capture]] = {}
        self._at: dict[fx.Node, list[Site]] = {}

    def add(self, step: Step) -> None:
        """Take up a step, if its result is an activation that the graph has units of."""
        value = step.result if step.program is None else None
        entry = value.function_of if isinstance(value, Value) else None
        nodes = self._numbers[step.nodes.start : step.nodes.stop]
        if not isinstance(value, Value) or entry is None or not (nodes >= 0).any():
            return
        if entry.dtype.is_complex or value.dtype.is_complex or id(entry) not in self._readers:
            return  # counted among what cannot be seen
        nodes = nodes[nodes >= 0].astype(np.int64)
        layer = self._graph.layers[self._graph.layer[nodes[0]]].name
        number = self._entries.setdefault(id(entry), len(self._entries))
        units = self._units(compact(value.labels), nodes)
        masked = holds_infinities(entry.node)
        masks = _chooses(step.call) and holds_infinities(step.call.node)
        site = Site(len(self._sites), layer, nodes, units, number, masked, masks)
        self._sites.append(site)
        self._at.setdefault(step.call.node, []).append(site)
        self._capture(entry, number, step)

    def plan(self) -> Plan:
        """What was collected."""
        needed = {*self._captures, *self._at}
        callers: set[fx.Node] = set()
        for node in needed:
            while node.graph in self._caller:
                node = self._caller[node.graph]
                callers.add(node)
        watches = {
            node: Watch(
                tuple(self._captures.get(node, {}).values()),
                tuple(self._at.get(node, ())),
                self._inner(node) if node in callers else None,
            )
            for node in needed | callers
        }
        uses = np.bincount([site.entry for site in self._sites], minlength=1)
        return Plan(
            recording=self._recording,
            writes=bool(self._writes),
            written=tuple(_written_attributes(self._recording)),
            graph=self._graph,
            sites=tuple(self._sites),
            watches=watches,
            uses=dict(enumerate(uses.tolist())),
            unseen=self._unseen(),
        )

    def _position(self, node: fx.Node) -> tuple[int, int]:
        """Position in the program of a call, or of the one it is a part of; how far inside."""
        depth = 0
        while node.graph in self._caller:
            node, depth = self._caller[node.graph], depth + 1
        return self._order[node], depth

    def _first_readers(self) -> dict[int, tuple[tuple[int, int], Step, int]]:
        """For each value the first call that reads it: its position, itself, and which leaf."""
        readers: dict[int, tuple[tuple[int, int], Step, int]] = {}
        for step in self._steps.values():
            position = self._position(step.call.node)
            if step.call.func in SILENT:
                continue
            for leaf, value in enumerate(pytree.tree_leaves(dict(step.call.arguments))):
                if isinstance(value, Value) and (
                    id(value) not in readers or position < readers[id(value)][0]
                ):
                    readers[id(value)] = position, step, leaf
        return readers

    def _capture(self, entry: Value, number: int, last: Step) -> None:
        """Keep an entry from the call that first reads it to a site."""
        (first, _), step, leaf = self._readers[id(entry)]
        end = self._position(last.call.node)[0]
        copied = bool(np.searchsorted(self._writes, first) < np.searchsorted(self._writes, end + 1))
        own = self._captures.setdefault(step.call.node, {})
        copied |= number in own and own[number].copied
        own[number] = Capture(leaf, number, copied)

    def _units(self, labels: Tensor, nodes: np.ndarray) -> Tensor:
        """Position among `nodes` of the unit of each label, their number where there is none."""
        flat = labels.numpy()
        number = np.where(flat >= 0, self._numbers[flat], -1)
        position = np.searchsorted(nodes, number).clip(max=len(nodes) - 1)
        return torch.from_numpy(np.where(nodes[position] == number, position, len(nodes)))

    def _inner(self, node: fx.Node) -> Inner:
        step = self._steps[node]
        assert step.program is not None
        leaves = pytree.tree_leaves(dict(step.call.arguments))
        at = {id(leaf): position for position, leaf in enumerate(leaves)}
        return Inner(step.program, tuple(at[id(value)] for value in step.call.values()))

    def _unseen(self) -> dict[str, int]:
        active = self._graph.activity > 0
        for site in self._sites:
            active[site.nodes] = False
        counts = np.bincount(self._graph.layer[active], minlength=len(self._graph.layers))
        return {self._graph.layers[row].name: int(counts[row]) for row in np.flatnonzero(counts)}


def is_mutable(node: fx.Node) -> bool:
    """Whether a call writes to one of its operands."""
    return isinstance(node.target, torch._ops.OpOverload) and bool(node.target._schema.is_mutable)


def holds_infinities(node: fx.Node) -> bool:
    """Whether a tensor has elements that its program sets to infinity, before any layer reads it.

    Args:
        node: of the tensor.
    """
    seen, stack = {node}, [node]
    while stack:
        call = stack.pop()
        if any(
            isinstance(leaf, float) and math.isinf(leaf) for leaf in pytree.tree_leaves(call.args)
        ):
            return True
        rule = find_rule(call.target) if isinstance(call.target, torch._ops.OpOverload) else None
        if rule is None or rule.kind in ("elementwise", "movement"):
            stack += [other for other in call.all_input_nodes if other not in seen]
            seen.update(stack)
    return False


def _chooses(call: Call) -> bool:
    """Whether each element of a result is an element of an operand, or a constant."""
    return call.name in CHOICES or kind_of_call(call) == "movement"


def _written_attributes(recording: Recording) -> list[Tensor]:
    """The parameters, buffers and other tensors from outside that a program may write to.

    They are those that an in-place call reads, be it through views of them.
    """
    reached: dict[fx.Node, set[fx.Node]] = {}  # the attributes that each node may be a view of
    found: set[fx.Node] = set()
    for node in recording.graph.nodes:
        if node.op == "get_attr":
            reached[node] = {node}
            continue
        behind = set().union(*(reached.get(source, set()) for source in node.all_input_nodes))
        schema = getattr(node.target, "_schema", None)
        if behind and (schema is None or any(r.alias_info is not None for r in schema.returns)):
            reached[node] = behind
        if is_mutable(node):
            found |= behind
    return [recording.attributes[str(node.target)] for node in found]


def difference(one: Plan, other: Plan) -> str:
    """How two plans differ in units, edges or sites, "" where they do not."""
    rows: list[dict[str, Any]] = [
        {layer.name: layer for layer in plan.graph.layers} for plan in (one, other)
    ]
    if alone := [name for name in (*rows[0], *rows[1]) if (name in rows[0]) != (name in rows[1])]:
        return f"only one of them has a layer {alone[0]!r}"
    for name, layer in rows[0].items():
        if layer.count != rows[1][name].count:
            return f"layer {name!r} has {rows[1][name].count} nodes instead of {layer.count}"
    same = one.graph.layers == other.graph.layers and all(
        np.array_equal(getattr(one.graph, name), getattr(other.graph, name))
        for name in ("kind", "indptr", "indices")
    )
    if not same:
        return "the units of their layers are connected in other ways"
    seen = [{site.layer for site in plan.sites} for plan in (one, other)]
    return f"only one of them lets {min(seen[0] ^ seen[1])!r} be seen" if seen[0] ^ seen[1] else ""
