"""The one intermediate form: a torch.fx graph of ATen-level calls with module paths."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from pathlen.tracing.guard import Limits

FAKE_TENSORS = "eager recorder (fake tensors)"
GRADIENTS = "eager recorder (gradients)"  # for models that call autograd in their forward
REAL_TENSORS = "eager recorder (real tensors)"  # for programs that read values
REAL_GRADIENTS = "eager recorder (real tensors, gradients)"  # for those that do both
EXPORT = "torch.export"
EAGER = (FAKE_TENSORS, GRADIENTS, REAL_TENSORS, REAL_GRADIENTS)
"""Names of tracers, as they stand in `Recording.tracer`."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a tracer saw of one forward pass.

    Every node of `graph` carries `meta["val"]` (a tensor without data, or a nest of them, that
    tells shape and dtype) and `meta["nn_module_stack"]` in the form that torch.export writes:
    an ordered mapping whose last value is (module path, class) of the module that ran it.

    Attributes:
        graph: placeholders, get_attr, call_function and one output node, in program order.
        attributes: tensors behind the get_attr targets: parameters, buffers, constants.
        outputs: name and node of every tensor that the model returned, in order.
        tracer: name of the tracer that succeeded.
        attempts: why the tracers before it did not.
        draws: whether it drew random numbers by Python or numpy (see `draws`).
        remarks: what makes the program one of several, in words (see `choices`).
        notes: what else is to be told of it.
        limits: what it may take where it is run, None where its code is the user's own.
    """

    graph: fx.Graph
    attributes: Mapping[str, torch.Tensor]
    outputs: tuple[tuple[str, fx.Node], ...]
    tracer: str
    attempts: tuple[str, ...] = field(default=())
    draws: bool = field(default=False)
    remarks: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
    limits: Limits | None = field(default=None)

    @property
    def takes_gradients(self) -> bool:
        """Whether the model differentiates in its forward."""
        return self.tracer in (GRADIENTS, REAL_GRADIENTS)

    @property
    def needs_values(self) -> bool:
        """Whether the model can be followed on tensors with values only."""
        return self.tracer in (REAL_TENSORS, REAL_GRADIENTS)

    def to_module(self) -> fx.GraphModule:
        """The recording as a module that can be run on the recorded shapes (eval mode)."""
        root = torch.nn.Module()
        for name, tensor in self.attributes.items():
            _attach(root, name, tensor)
        return fx.GraphModule(root, self.graph)


def module_path(node: fx.Node) -> str:
    """Path of the module whose forward made this node, "" for the model itself."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = next(reversed(stack.values()))[0]
    return str(path)


def computes_nothing(func: Any) -> bool:
    """Whether an operator computes nothing: it asserts something, prints, or asks for a size."""
    schema = getattr(func, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    return not schema.returns or schema.name.startswith("aten::sym_")


def _attach(root: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Make `root.a.b.c` the tensor for name "a.b.c", without registering a parameter twice."""
    *parents, leaf = name.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, torch.nn.Module())
        root = getattr(root, parent)
    root.register_buffer(leaf, tensor.detach())
