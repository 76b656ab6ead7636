"""Third check: which inputs each output depends on, against what the path graph can reach.

The program runs under autograd with the statistics of normalizations and softmax held fixed, the
regions that the canonical forms make of several calls computed from their entries. More
reachability than dependence is no fault: positions are collapsed in a path graph.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.graph.path_graph import Kind
from pathlen.lowering.labels import CONSTANT, compact, distinct
from pathlen.lowering.steps import Step, Steps
from pathlen.lowering.values import Value
from pathlen.tracing import Recording, module_path
from pathlen.verification.connections import Connections
from pathlen.verification.cuts import lacks_held_form, operands
from pathlen.verification.draws import Draws
from pathlen.verification.edges import Edges
from pathlen.verification.replay import Replay, Tensors, wide
from pathlen.verification.statistics import holds_statistics
from pathlen.verification.support import positions
from pathlen.verification.tally import Tally
from pathlen.verification.verdict import Check, Offence

MOST_OUTPUTS = 32
_DRAWS = 2
_ROUNDING = 1e-10


class WholeModel:
    """Checks inputs against outputs.

    Args:
        recording: the program.
        steps: its lowered calls.
        values: of its nodes after the last call.
        edges: the unpruned graph.
        connections: knows where each call begins.
        seed: of the random draws.
    """

    def __init__(
        self,
        recording: Recording,
        steps: Steps,
        values: Mapping[fx.Node, Any],
        edges: Edges,
        connections: Connections,
        seed: int,
    ) -> None:
        self._recording = recording
        self._steps = steps
        self._edges = edges
        self._connections = connections
        self._draws = Draws(seed)
        self._values = [values[node] for _, node in recording.outputs]
        self._starts = np.flatnonzero(edges.kind == Kind.INPUT)
        self._whole = torch.zeros(len(self._starts), dtype=torch.float64)
        self._tally = Tally(
            "whole model",
            "every output unit has a path from every input unit that it depends on",
            "pairs of units",
        )

    def check(self, inputs: list[Any]) -> Check:
        """Compare the model's Jacobian at several inputs and parameters with the graph.

        Args:
            inputs: the tensors that the model was given, in the order of the placeholders.
        """
        rows = self._rows()
        if len(rows) > MOST_OUTPUTS:
            self._tally.note(f"{MOST_OUTPUTS} output units were drawn from {len(rows)}", "output")
            rows = [rows[n] for n in self._draws.order(len(rows))[:MOST_OUTPUTS]]
        depends = np.zeros((len(rows), len(self._starts)), dtype=np.bool_)
        drawn = 0
        for number in range(_DRAWS):
            try:
                depends |= self._jacobian(rows, inputs, number)
            except Exception as error:  # operators raise whatever they raise
                self._tally.leave(error, f"draw {number}")
            else:
                drawn += 1
        if drawn:
            self._compare(rows, depends)
        return self._tally.check()

    def _rows(self) -> list[tuple[int, int]]:
        """Output number and unit of everything to look at, `CONSTANT` where it has no unit."""
        rows: list[tuple[int, int]] = []
        for number, value in enumerate(self._values):
            rows += [(number, unit) for unit in distinct(value.labels).tolist()]
            if bool((compact(value.labels).numpy() == CONSTANT).any()):
                rows.append((number, CONSTANT))
        return rows

    def _ends(self) -> dict[tuple[int, int], int]:
        """The output node of each unit of each output, in the order in which they were added."""
        nodes = iter(np.flatnonzero(self._edges.kind == Kind.OUTPUT).tolist())
        ends = {}
        for number, value in enumerate(self._values):
            for unit in distinct(value.labels).tolist():
                node = next(nodes)
                if unit in self._edges.predecessors(node):
                    ends[number, unit] = node
        return ends

    def _compare(self, rows: list[tuple[int, int]], depends: np.ndarray) -> None:
        ends = self._ends()
        nodes = [np.array([ends[row]] if row in ends else [], dtype=np.int64) for row in rows]
        reach = self._edges.reach(nodes, self._starts)
        missing, extra = depends & ~reach, reach & ~depends
        told = None
        if missing.any():
            row, column = np.argwhere(missing)[0]
            number, unit = rows[row]
            name, node = self._recording.outputs[number]
            which = "elements without a unit depend" if unit == CONSTANT else f"unit {unit} depends"
            what = (
                f"{which} on input unit {self._starts[column]}, but no path leads there"
                f" ({int(missing.sum())} of {missing.size} pairs; output {name!r})"
            )
            shape = tuple(self._values[number].shape)
            told = Offence("output", module_path(node), shape, what, float(missing.sum()))
        self._tally.add(missing.size, int(missing.sum()), told)
        text = f"{int(extra.sum()):,} pairs have a path beside {int(reach.sum() - extra.sum()):,}"
        self._tally.note(f"{text} that depend on each other (no fault)", "output")

    def _jacobian(self, rows: list[tuple[int, int]], inputs: list[Any], number: int) -> np.ndarray:
        """Which input units each row depends on, at one draw.

        Returns:
            Whether it does.  # bool[rows, input units]
        """
        placeholders = [node for node in self._recording.graph.nodes if node.op == "placeholder"]
        given = [self._input(tensor, number) for tensor in inputs]
        self._whole = torch.zeros(len(self._starts), dtype=torch.float64, requires_grad=True)
        ends = [
            (positions(self._steps.inputs[node].labels, self._starts), tensor)
            for node, tensor in zip(placeholders, given, strict=True)
            if isinstance(tensor, torch.Tensor) and tensor.requires_grad
        ]
        attributes = {
            name: drawn_parameter(tensor, number, self._draws)
            for name, tensor in self._recording.attributes.items()
        }
        with torch.enable_grad():
            entered = [t.clone() if isinstance(t, torch.Tensor) else t for t in given]
            replay = Replay(self._recording, entered, attributes, self._steps, self._compute)
            outputs = replay.run().outputs()
        found = np.zeros((len(rows), len(self._starts)), dtype=np.bool_)
        for row, (output, unit) in enumerate(rows):
            result, labels = outputs[output], self._values[output].labels
            if not result.requires_grad:
                continue
            cotangent = self._draws.normal(result) * (labels == unit)
            gradients = torch.autograd.grad(
                result,
                [*(tensor for _, tensor in ends), self._whole],
                cotangent,
                retain_graph=True,
                allow_unused=True,
            )
            found[row] = self._depends(gradients, [at for at, _ in ends])
        return found

    def _depends(self, gradients: Any, positions_of: list[torch.Tensor]) -> np.ndarray:
        size = torch.zeros(len(self._starts) + 1, dtype=torch.float64)
        everything = torch.arange(len(self._starts))
        for at, gradient in zip([*positions_of, everything], gradients, strict=True):
            if gradient is not None:
                flat = gradient.abs().nan_to_num(0, 0, 0).double().reshape(-1)
                size.scatter_reduce_(0, at, flat, "amax")
        size = size[:-1]
        found: np.ndarray = (size > _ROUNDING * size.max()).numpy()
        return found

    def _compute(self, step: Step, tensors: Tensors) -> Any:
        """Results of a call with statistics fixed; None where the operator itself will do."""
        cut = self._connections.cut(step)
        call = step.call
        whole = [v for v in cut.values if not (v.dtype.is_floating_point or v.dtype.is_complex)]
        held = len(cut.values) < sum(value.is_path for value in operands(call))
        statistics = holds_statistics(call.name) or lacks_held_form(call)
        if not cut.values or not (cut.inside or whole or held or statistics):
            return None
        found = iter(cut({}, tensors))
        scale = self._scale(whole)

        def result(val: torch.Tensor) -> torch.Tensor:
            tensor = next(found)
            floating = val.is_floating_point() or val.is_complex()
            return tensor * scale if whole and floating else tensor

        return pytree.tree_map_only(torch.Tensor, result, call.node.meta["val"])

    def _scale(self, whole: list[Value]) -> torch.Tensor:
        """A factor 1 whose derivative by the input units behind integer operands is not 0.

        Integers have no derivatives; that a call's result depends on them is checked beside.
        """
        units = [distinct(value.labels) for value in whole]
        reach = self._edges.reach(units, self._starts).any(axis=0)
        scale: torch.Tensor = 1 + self._whole[torch.from_numpy(reach)].sum()
        return scale

    def _input(self, tensor: Any, number: int) -> Any:
        if not isinstance(tensor, torch.Tensor):
            return tensor
        own = wide(tensor)
        if not (own.is_floating_point() or own.is_complex()):
            return own
        return (own if number == 0 else self._draws.normal(own)).requires_grad_()


def drawn_parameter(tensor: torch.Tensor, number: int, draws: Draws) -> torch.Tensor:
    """A parameter drawn anew, at its own scale; a buffer, and what draw 0 takes, as it is."""
    own = wide(tensor)
    if number == 0 or not isinstance(tensor, torch.nn.Parameter) or not tensor.numel():
        return own
    if not (own.is_floating_point() or own.is_complex()):
        return own
    if own.ndim < 2:
        numbers = torch.rand(own.shape, dtype=own.dtype, generator=draws.generator)
        return own * 0.8 + 0.1 + 0.3 * numbers
    return draws.normal(own) / math.sqrt(own[0].numel())
