"""What every rule works with: the graph being built, the policy, names of call sites, remarks."""

from collections import Counter
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.graph.parts import STATUSES
from pathlen.lowering.builder import GraphBuilder
from pathlen.lowering.constants import Constants
from pathlen.lowering.decompose import Decompositions
from pathlen.lowering.labels import constant_labels, distinct, rename
from pathlen.lowering.liveness import drop_labels
from pathlen.lowering.steps import Steps
from pathlen.lowering.values import Call, Softmax, Value
from pathlen.lowering.variants import Variants
from pathlen.lowering.waiting import Waiting
from pathlen.lowering.weighted_builder import WeightedBuilder
from pathlen.policy import Policy
from pathlen.tracing import module_path

_BY_DATA = (
    "magnitudes: what depends on the data counts as 1 (softmax, statistics of normalizations, the"
    " other factor of a product)"
)
_FEW_BYTES = 1 << 20
_RANK = {status: rank for rank, status in enumerate(STATUSES)}


class Lowering:
    """One model being lowered.

    Attributes:
        policy: what counts.
        builder: the path graph so far.
        constants: values of parameters and of what is computed from them alone.
        variants: tells apart the affine functions of one element that a tensor holds.
        decompositions: programs of the operations that no rule knows.
        readers: how many calls read the result of a node (by id of the node).
        activity: of the functions without parameters that were met.
        status: the worst status so far.
        remarks: what caused a status other than exact, and what else the user should know.
        call_status: the worst status of the call that is being lowered.
        rows: the module and operation of each call that has a row in the table of layers.
        steps: records each call, if `pathlen.verify` asks for it.
        weights: the builder, where edges carry weights; else None.
    """

    def __init__(
        self, policy: Policy, parents: frozenset[str], weights: WeightedBuilder | None = None
    ) -> None:
        self.policy = policy
        self.weights = weights
        self.builder = GraphBuilder() if weights is None else weights
        self.constants = Constants()
        self.variants = Variants(self.constants, None if weights is None else weights.scales)
        self.decompositions = Decompositions()
        self.readers: dict[int, int] = {}
        self.activity: dict[Hashable, torch.Tensor] = {}
        self.status = "exact"
        self.remarks: list[str] = []
        self._doubts: list[tuple[range, str, str]] = []
        self.call_status = "exact"
        self.einsums: set[fx.Graph] = set()
        self.steps: Steps | None = None
        self.shares: list[range] = []
        self.rows: list[tuple[str, str]] = []
        self._with_labels: list[Value] = []
        self._kept_bytes = self._new_bytes = 0  # of the labels among these
        self._parents = parents
        self._names: Counter[str] = Counter()
        self._leaves: dict[str, str] = {}
        self._order = 0

    def result(
        self,
        call: Call,
        labels: torch.Tensor,
        *,
        dtype: torch.dtype | None = None,
        softmax: Softmax = "",
        softmax_of: Value | None = None,
    ) -> Value:
        """The value of a call's result.

        Args:
            call: the call.
            labels: of the result.
            dtype: of the result, where it is not the first of several.
            softmax: which part of a softmax of path tensors the result is.
            softmax_of: an operand that the result passes on: it is the same part as that.
        """
        softmax = softmax or (softmax_of.softmax if softmax_of is not None else "")
        return self.value(
            call.node, labels, dtype or call.output.dtype, varies=True, call=call, softmax=softmax
        )

    def value(
        self,
        node: fx.Node,
        labels: torch.Tensor,
        dtype: torch.dtype,
        *,
        varies: bool,
        call: Call | None = None,
        softmax: Softmax = "",
    ) -> Value:
        """A new value, later in the program than all before it."""
        value = Value(labels, dtype, varies, node, call, self.next_order(), softmax=softmax)
        self._with_labels.append(value)
        self._new_bytes += labels.untyped_storage().nbytes()
        return value

    def next_order(self) -> float:
        """The place in the program of a value that is made now."""
        self._order += 1
        return self._order

    def narrow(self, last: Value) -> None:
        """Let go of what is not needed any more once `last` is all that will be read."""
        if self.steps is not None:  # a check of the result looks at everything
            return
        if isinstance(last, Waiting) and last.waits:
            return
        # Finding what is kept takes as long as that is large, so it pays once as much is new.
        if self._new_bytes > max(_FEW_BYTES, self._kept_bytes // 2):
            self._with_labels = drop_labels(self._with_labels, last, self.readers)
            sizes = [value.labels.untyped_storage().nbytes() for value in self._with_labels]
            self._kept_bytes, self._new_bytes = sum(sizes), 0

    def cut(self, call: Call) -> Any:
        """Results that no path leads to, though the input decides on them."""

        def result(val: torch.Tensor) -> Value:
            return self.result(call, constant_labels(val.shape), dtype=val.dtype)

        return pytree.tree_map_only(torch.Tensor, result, call.node.meta["val"])

    def passed(self, node: fx.Node, value: Value) -> Value:
        """A value under another node, with its history: of a decomposition, or one of several."""
        passed = value.changed(node=node)
        self._with_labels.append(passed)
        return passed

    @property
    def said(self) -> int:
        """How many remarks there are so far."""
        return len(self.remarks) + len(self._doubts)

    def layer(self, call: Call, operation: str = "") -> None:
        """Nodes added from now on belong to this call's row of the layers table."""
        operation, path = operation or call.operation, module_path(call.node)
        self.rows.append((path, operation))
        self.builder.layer(self.unique_name(path, operation), operation)

    def counted(self, kind: str, call: Call, labels: torch.Tensor) -> torch.Tensor:
        """Labels passed on; where the policy counts the kind, a new active unit for each."""
        if not self.policy.counts(kind):
            return labels
        labels = self.unified(labels)
        units = distinct(labels)
        if not len(units):
            return labels
        self.layer(call)
        return rename(labels, units, self.builder.units(units, 1.0))

    def unified(self, labels: torch.Tensor) -> torch.Tensor:
        """The labels that the tensor has without weights, for what asks which units there are.

        A unit that the tensor holds scaled by several factors counts with the largest of them.
        """
        return labels if self.weights is None else self.weights.scales.unified(labels)

    def roots(self, labels: torch.Tensor) -> torch.Tensor:
        """The units of the labels, whatever factors these have."""
        return labels if self.weights is None else self.weights.scales.roots(labels)

    def scaled(self, labels: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Labels of a tensor multiplied by constants of these absolute values."""
        return labels if self.weights is None else self.weights.scales.scaled(labels, factor)

    def by_data(self) -> None:
        """Say that a factor that depends on the data counts as 1, where edges carry weights."""
        if self.weights is not None:
            self.remark(_BY_DATA)

    def uncertain(self, call: Call, what: str) -> None:
        """Say that a factor is not known and counts as 1, where edges carry weights."""
        if self.weights is not None:
            self.remark(f"magnitudes: {self.site(call)}: {what}: not known, counts as 1")

    def site(self, call: Call) -> str:
        """Where a call is, for messages."""
        return f"{call.name} in module {module_path(call.node) or '(top level)'!r}"

    def remark(self, text: str, status: str = "exact") -> None:
        """Note something that the user should know; lower the status of the result if need be."""
        if text not in self.remarks:
            self.remarks.append(text)
        if _RANK[status] > _RANK[self.status]:
            self.status = status
        if _RANK[status] > _RANK[self.call_status]:
            self.call_status = status

    def remark_on(self, nodes: range, text: str, status: str) -> None:
        """Note something that matters only if one of these nodes is left in the finished graph."""
        self._doubts.append((self.builder.placed(nodes), text, status))
        if _RANK[status] > _RANK[self.call_status]:
            self.call_status = status

    def settle_doubts(self) -> None:
        """Take up the remarks on nodes that are left in the graph, once all outputs are known."""
        left = self.builder.numbers() >= 0 if self._doubts else np.empty(0)
        for nodes, text, status in self._doubts:
            if left[nodes.start : nodes.stop].any():
                self.remark(text, status)

    def unique_name(self, path: str, operation: str) -> str:
        """The module's path for a module that does one thing; else the path and the operation."""
        name = path
        if path in self._parents or self._leaves.setdefault(path, operation) != operation:
            name = f"{path}.{operation}".strip(".")
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"
