"""Runs a recorded program on labels: each node gets a value, each call its rule."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx.node import map_aggregate, map_arg
from torch.utils import _pytree as pytree

from pathlen.errors import PathlenError, TraceError, UnsupportedOperation
from pathlen.lowering.again import Again
from pathlen.lowering.aliases import Aliases
from pathlen.lowering.commuting import divided_before
from pathlen.lowering.context import Lowering
from pathlen.lowering.decompose import decompose
from pathlen.lowering.indexing import function_by_masks
from pathlen.lowering.inputs import input_features
from pathlen.lowering.labels import CONSTANT, compact, constant_labels
from pathlen.lowering.liveness import Liveness
from pathlen.lowering.lookups import chooser_of, has_root
from pathlen.lowering.one_sum import as_one_sum
from pathlen.lowering.operations import makes_constant, written_argument
from pathlen.lowering.picked import picked_from_product
from pathlen.lowering.placed import as_written
from pathlen.lowering.probe import probe
from pathlen.lowering.readers import count_readers
from pathlen.lowering.reduction import function_along
from pathlen.lowering.rules import find_rule
from pathlen.lowering.steps import Step
from pathlen.lowering.taken_apart import take_apart
from pathlen.lowering.values import Call, Value, bind_call
from pathlen.lowering.waits import Waits
from pathlen.tracing import Recording, module_path


class Interpreter:
    """Runs a program on labels: each node gets a value, each call its rule.

    Args:
        recording: the program.
        lowering: takes what the rules add to the graph.
        input_axis: see `lower`.
        given: values of the placeholders, for the program of a decomposition.
        refused: takes a line for each refused operation; those of a decomposition go to the list
            of the program around it.
    """

    def __init__(
        self,
        recording: Recording,
        lowering: Lowering,
        input_axis: int | Mapping[str, int] | None = None,
        given: Mapping[fx.Node, Value] | None = None,
        refused: list[str] | None = None,
    ) -> None:
        self.values: dict[fx.Node, Any] = dict(given or {})
        self._recording = recording
        self._lowering = lowering
        self._input_axis = input_axis
        self._aliases = Aliases()
        self._refused: list[str] = [] if refused is None else refused
        self._failure: Exception | None = None
        self._is_whole = refused is None
        self._waits = Waits(lowering)
        self._liveness = Liveness(recording) if self._is_whole else None
        lowering.constants.add(recording.graph, recording.attributes, self.values.copy())
        readers = count_readers(recording)
        lowering.readers.update(readers)
        for placeholder, value in self.values.items():  # the call reads it once for each of these
            more = max(readers.get(id(placeholder), 0) - 1, 0)
            lowering.readers[id(value.node)] = lowering.readers.get(id(value.node), 0) + more

    def run(self) -> None:
        """Lower every node.

        Raises:
            UnsupportedOperation: some operations have no rule; the message lists all of them.
        """
        nodes, number = list(self._recording.graph.nodes), 0
        again = self._again()
        while number < len(nodes):
            node = nodes[number]
            if node.op == "placeholder":
                if node not in self.values:
                    is_tensor = isinstance(node.meta["val"], torch.Tensor)
                    self.values[node] = self._input(node) if is_tensor else node.meta["val"]
                    if self._lowering.steps is not None:
                        self._lowering.steps.inputs[node] = self.values[node]
            elif node.op == "get_attr":
                self.values[node] = self._constant(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op != "output":
                raise TraceError(f"cannot lower a node of kind {node.op}: {node.format_node()}")
            if self._liveness is not None and self._liveness.narrows_at(
                node, self.values.get(node)
            ):
                self._lowering.narrow(self.values[node])
            number = number + 1 if again is None else again.after(number)
        for _, node in self._recording.outputs:
            self._read(node)
        if self._refused and self._is_whole:
            raise UnsupportedOperation(_refusal(self._refused)) from self._failure

    def _again(self) -> Again | None:
        """What places blocks again that repeat; None where every call is to be seen."""
        lowering = self._lowering
        if self._liveness is None or lowering.steps is not None or lowering.weights is not None:
            return None
        return Again(self._recording, lowering, self._aliases, self._liveness, self.values)

    def _input(self, node: fx.Node) -> Value:
        features = input_features(node, self._recording, self._input_axis, self._lowering)
        count = int(compact(features).max()) + 1 if features.numel() else 0
        name = node.meta.get("input_name", node.name)
        self._lowering.builder.layer(name, "input")
        units = np.append(self._lowering.builder.inputs(count), CONSTANT)
        labels = torch.from_numpy(units)[compact(features)].expand(features.shape)
        return self._lowering.value(node, labels, node.meta["val"].dtype, varies=True)

    def _unknown(self, node: fx.Node) -> Any:
        """Values for the result of a refused operation: one unit, so that its readers are seen."""
        unit = int(self._lowering.builder.inputs(1)[0])

        def unknown(val: torch.Tensor) -> Value:
            labels = torch.full((), unit).expand(val.shape)
            return self._lowering.value(node, labels, val.dtype, varies=True)

        return pytree.tree_map_only(torch.Tensor, unknown, node.meta["val"])

    def _constant(self, node: fx.Node) -> Any:
        """Values without units, for the result of a node that no input reaches."""

        def constant(val: Any) -> Any:
            if isinstance(val, torch.Tensor):
                return self._lowering.value(
                    node, constant_labels(val.shape), val.dtype, varies=False
                )
            return val

        return map_aggregate(node.meta["val"], constant)

    def _call(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            self._item(node)
            return
        if self._postpones(node):
            return
        args, kwargs = map_arg((node.args, node.kwargs), self._read)
        if not isinstance(node.target, torch._ops.OpOverload):
            self._other(node, args, kwargs)
            return
        call = bind_call(node.target, args, kwargs, node)
        if makes_constant(node.target) or not any(value.varies for value in call.values()):
            self.values[node] = self._constant(node)
        else:
            self.values[node] = self._watched(call)
        written = self._aliases.update(call, self.values)
        if written is not None and self._liveness is not None:
            self._liveness.holds(written)

    def _read(self, node: fx.Node) -> Any:
        """What a node holds now."""
        return self._aliases.read(node, self.values, self._lowering)

    def _postpones(self, node: fx.Node) -> bool:
        """Whether a call takes a view of memory that need not be known before the view is read."""
        if self._lowering.steps is not None:  # a check wants to see every call
            return False
        if not any(self._aliases.is_in_parts(operand) for operand in node.all_input_nodes):
            return False
        if not isinstance(node.target, torch._ops.OpOverload):
            return False
        return self._aliases.postpones(node)

    def _watched(self, call: Call) -> Any:
        """Lower a call that the inputs reach; note what it did, where somebody wants to know."""
        lowering, first = self._lowering, self._lowering.builder.num_nodes
        lowering.call_status = "exact"
        call = as_written(call, lowering.constants)
        if _is_cut(call):
            result = self._cut(call)
        else:
            result = self._waits.waiting(call, lambda: self._apply(call)) or self._apply(call)
            self._waits.note(call, result)
        if lowering.steps is not None:
            nodes = range(first, lowering.builder.num_nodes)
            program = lowering.steps.programs.get(call.node)
            reads, lowering.constants.reads = tuple(lowering.constants.reads or ()), []
            shares, lowering.shares = tuple(lowering.shares), []
            step = Step(call, result, nodes, lowering.call_status, program, reads, shares)
            lowering.steps.taken.append(step)
        return result

    def _cut(self, call: Call) -> Any:
        """A call without paths: through masks and integers it may be a scalar function."""
        rooted = all(has_root(value) for value in call.values() if value.varies)
        if rooted and call.name == "aten.take":
            return self._without_rule(call)
        found = function_by_masks(call, self._lowering) if rooted else None
        return self._lowering.cut(call) if found is None else found

    def _other(self, node: fx.Node, args: Any, kwargs: Any) -> None:
        """Calls of Python functions: arithmetic of sizes passes, anything else is refused."""
        operands = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Value)]
        if any(operand.varies for operand in operands):
            self._refuse(node, "no ATen operator")
        self.values[node] = self._constant(node)

    def _apply(self, call: Call) -> Any:
        found = find_rule(call.func)
        try:
            _require_result(call)
            if found and not found.apply.__module__.startswith("pathlen."):
                self._lowering.uncertain(call, "the gain of an operator with a rule of your own")
            result = function_along(call, self._lowering) if found else None
            if result is None and chooser_of(call) is not None:
                result = function_by_masks(call, self._lowering)
            if result is None:
                result = divided_before(call, self._lowering)
            if result is None:
                result = picked_from_product(call, self._lowering)
            if found and result is None:
                result = found.apply(call, self._lowering)
                take_apart(call, result, self._lowering)
                if isinstance(result, Value):
                    as_one_sum(call, result, self._lowering)
            return self._without_rule(call) if result is None else result
        except UnsupportedOperation as error:
            self._refuse(call.node, str(error))
        except PathlenError:
            raise
        except Exception as error:  # a rule met what it was not written for: say where
            self._failure = error
            told = str(error).partition("\n")[0]
            self._refuse(call.node, f"its rule fails on this call: {type(error).__name__}: {told}")
        return self._unknown(call.node)  # go on, to tell all refusals at once

    def _without_rule(self, call: Call) -> Any:
        """An operation that no rule knows: decompose it, and lower what it is made of."""
        steps = self._lowering.steps
        known = decompose if steps is not None else self._lowering.decompositions.of
        try:
            program = known(call)
        except UnsupportedOperation as error:  # it needs values: then these show what it reads
            try:
                return probe(call, self._lowering)
            except UnsupportedOperation:
                raise error from None
        if program is None:
            return probe(call, self._lowering)
        if steps is not None:  # a program of its own, because steps go by nodes
            steps.programs[call.node] = program
        if call.name == "aten.einsum" and len(call["tensors"]) > 2:
            self._lowering.einsums.add(program.graph)
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
        given = dict(zip(placeholders, call.values(), strict=True))
        inner = Interpreter(program, self._lowering, given=given, refused=self._refused)
        inner.run()
        results = [inner.values[node] for _, node in program.outputs]
        vals = call.node.meta["val"]
        if isinstance(vals, torch.Tensor):
            return self._lowering.passed(call.node, results[0])
        parts = iter(results)
        return pytree.tree_map_only(
            torch.Tensor, lambda _: self._lowering.passed(call.node, next(parts)), vals
        )

    def _item(self, node: fx.Node) -> None:
        """One of several results."""
        source, position = node.args
        self._aliases.item(source, node)  # type: ignore[arg-type]
        if source not in self.values:  # views that are taken when they are read
            return
        value = self.values[source][position]  # type: ignore[index]
        self.values[node] = (
            self._lowering.passed(node, value) if isinstance(value, Value) else value
        )

    def _refuse(self, node: fx.Node, why: str) -> None:
        shapes = [
            tuple(operand.meta["val"].shape)
            for operand in node.all_input_nodes
            if isinstance(operand.meta.get("val"), torch.Tensor)
        ]
        place = module_path(node) or "(top level)"
        self._refused.append(
            f"  {node.target} at node {node.name!r}, module {place!r}, operands {shapes}: {why}"
        )


def _is_cut(call: Call) -> bool:
    """Whether a call ends all paths: none leads to it, or floating point becomes integers.

    Integers that were integers before (indices of an embedding) keep their paths.
    """
    if not call.func._schema.returns:
        return written_argument(call.func) is None
    path = [value for value in call.values() if value.is_path]
    if not path:
        return True
    val = call.node.meta["val"]
    leaves = (val,) if isinstance(val, torch.Tensor) else pytree.tree_leaves(val)
    vals = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if any(val.is_floating_point() or val.is_complex() for val in vals):
        return False
    return not vals or all(v.dtype.is_floating_point or v.dtype.is_complex for v in path)


def _require_result(call: Call) -> None:
    """Raise UnsupportedOperation for an operator that writes to a tensor and returns nothing."""
    if not call.func._schema.returns:
        raise UnsupportedOperation(
            f"it writes to {written_argument(call.func)!r} and returns nothing; write the operator"
            " as a function that returns what it computes"
        )


def _refusal(refused: list[str]) -> str:
    listed = "\n".join(refused)
    return (
        f"{len(refused)} operation(s) cannot be lowered to a path graph:\n{listed}\n"
        "Register a rule for the operator (pathlen.register_rule), or leave the part of the"
        " model that uses it out of the trace (outputs=...)."
    )
