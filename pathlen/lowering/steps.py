"""What the lowering did, call by call, for whoever checks it (`pathlen.verify`)."""

from dataclasses import dataclass, field
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

from pathlen.lowering.builder import NodeArrays
from pathlen.lowering.values import Call, Value
from pathlen.tracing.recording import Recording


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One lowered call.

    Attributes:
        call: the call, with the values of its operands at that moment.
        result: the value of its result, or a tuple of them.
        nodes: ids of the nodes that it added to the graph.
        status: "exact", or what the rule said of this call.
        program: what the call was decomposed to, if no rule knew it; the steps of that program
            come before this one.
        reads: the constants whose values were looked at.
        shares: ids of nodes that an earlier call added, and that are its own as well.
    """

    call: Call
    result: Any
    nodes: range
    status: str
    program: Recording | None = None
    reads: tuple[Value, ...] = ()
    shares: tuple[range, ...] = ()


@dataclass(slots=True)
class Steps:
    """All lowered calls, those of decompositions included, in order.

    Attributes:
        taken: the calls.
        inputs: the values of the model's inputs before anything is written to them.
        programs: what calls were decomposed to, by the node of the call.
        nodes: all nodes of the graph, those on no path from input to output included.
    """

    taken: list[Step] = field(default_factory=list)
    inputs: dict[fx.Node, Value] = field(default_factory=dict)
    programs: dict[fx.Node, Recording] = field(default_factory=dict)
    nodes: NodeArrays | None = None

    def as_recorded(self) -> None:
        """Give each result the call that was recorded, which rules may have written in others.

        That is for when all is lowered: other calls look at what was written.
        """
        for step in self.taken:
            if step.program is None:
                for value in pytree.tree_leaves(step.result):
                    if isinstance(value, Value) and value.call is not None:
                        value.call = step.call
