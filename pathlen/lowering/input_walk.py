"""Follows an input through a program, to the layers that read it first."""

import operator
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.constants import Constants, UnknownConstantError
from pathlen.lowering.decompose import decompose
from pathlen.lowering.input_layers import (
    contracted_axes,
    einsum_terms,
    is_chooser,
    weakly_read_axes,
)
from pathlen.lowering.input_memory import Found, Origins, writes
from pathlen.lowering.input_reads import Read, read
from pathlen.lowering.labels import compact, constant_labels, expands
from pathlen.lowering.letters import letters_of
from pathlen.lowering.operations import BAGS, aten, makes_constant, written_argument
from pathlen.lowering.origins import NOWHERE, Origin, met, mixed, moved, nowhere, settled
from pathlen.lowering.rules import kind_of_call
from pathlen.lowering.values import Call, Value, bind_call, carries_path

_SCALES = frozenset(aten("mul multiply div divide true_divide"))
_SUMS = frozenset(aten("sum mean nansum"))
_PAIRS = {  # of a real and an imaginary part
    "aten.view_as_complex": lambda k: k.select(-1, 0),
    "aten.view_as_real": lambda k: k.unsqueeze(-1).expand(*k.shape, 2),
}


class Walk:
    """One input on its way through a program.

    Attributes:
        reads: what the layers tell that read the input, in order, up to the first by which all of
            its elements are read.
        hint: what a normalization with parameters or a Fourier transform tells, which counts where
            no layer does.
    """

    def __init__(self) -> None:
        self.reads: list[Read] = []
        self.hint: Read | None = None
        self._constants = Constants()  # its own, because it runs ahead of the rules
        self._values: dict[fx.Node, Any] = {}
        self._origins = Origins()

    def run(
        self,
        graph: fx.Graph,
        attributes: Mapping[str, torch.Tensor],
        origins: Mapping[fx.Node, Origin],
        given: Mapping[fx.Node, Value] | None = None,
    ) -> None:
        """Follow tensors through a program.

        Args:
            graph: the program.
            attributes: the tensors behind its get_attr nodes.
            origins: by node, of the placeholders to follow.
            given: what the placeholders stand for, in the program of a decomposition.
        """
        self._constants.add(graph, attributes, given or {})
        for node, origin in origins.items():
            self._origins[node] = origin
        for node in graph.nodes:
            if not any(source in self._origins for source in node.all_input_nodes):
                continue
            if self._origins.are_in_memory(node) and not writes(node):
                continue
            if node.target is operator.getitem:
                self._item(node)
            elif isinstance(node.target, torch._ops.OpOverload):
                self._call(node)
            if self.reads and self.reads[-1].is_whole:
                return

    def _item(self, node: fx.Node) -> None:
        source, position = node.args
        parts = self._origins.of(source)  # type: ignore[arg-type]
        if isinstance(parts, list) and parts[position] is not None:  # type: ignore[index]
            self._origins[node] = parts[position]  # type: ignore[index]

    def _call(self, node: fx.Node) -> None:
        call, operands = self._bound(node), dict[fx.Node, Origin]()
        for value in call.values():
            origin = self._origins.of(value.node)
            if isinstance(origin, Origin):
                operands[value.node] = origin
        found = self._result(call, operands) if operands else None
        if writes(node):
            self._write(call, found)
        elif found is not None and any(map(carries_path, pytree.tree_leaves(node.meta["val"]))):
            self._origins[node] = found

    def _bound(self, node: fx.Node) -> Call:
        args, kwargs = pytree.tree_map_only(fx.Node, self._value, (node.args, node.kwargs))
        return bind_call(node.target, args, kwargs, node)

    def _value(self, node: fx.Node) -> Any:
        val = node.meta["val"]
        if not isinstance(val, torch.Tensor):
            return val
        if node not in self._values:
            varies = not self._is_constant(node)
            self._values[node] = Value(constant_labels(val.shape), val.dtype, varies, node)
        return self._values[node]

    def _is_constant(self, node: fx.Node) -> bool:
        """Whether no input of the program reaches a node."""
        seen, queue = {node}, [node]
        while queue:
            at = queue.pop()
            if at in self._values:
                if self._values[at].varies:
                    return False
                continue
            if at.op == "placeholder" and self._constants.given(at) is None:
                return False
            queue += [source for source in at.all_input_nodes if source not in seen]
            seen.update(at.all_input_nodes)
        return True

    def _result(self, call: Call, operands: dict[fx.Node, Origin]) -> Found:
        """The origin of what a call returns; None for what a layer or a comparison makes."""
        kind, vals = kind_of_call(call), call.node.meta["val"]
        if makes_constant(call.func):
            return None
        if call.name in BAGS and call["indices"].node not in operands:
            return self._decomposed(call, operands)
        terms = einsum_terms(call)
        layers = contracted_axes(call, terms)
        first = next(value for value in call.values() if value.node in operands)
        if kind != "layer" and self._mixes_positions(layers, operands):
            letters = letters_of(call)
            if letters is not None:
                terms = [*letters.own], letters.out
            return self._without_contraction(call, terms, operands) if terms else None
        if layers:
            for value, axes in layers:
                if value.node in operands:
                    own = self._without_weighted_positions(call, terms, value, axes)
                    self._add(read(operands[value.node], own))
            return None
        weak = weakly_read_axes(call)
        if weak and self.hint is None:
            told = read(operands[first.node], weak)
            self.hint = told if told is not None and told.along else None  # windows tell nothing
        if call.name in _PAIRS:
            return operands[first.node].each(_PAIRS[call.name])
        if terms is not None:
            return self._without_contraction(call, terms, operands)
        if kind in ("elementwise", "normalization", "softmax"):
            return self._elementwise(call, operands)
        if kind == "movement" and not _samples(call):
            try:
                found: Found = moved(call, operands, self._index)
                return found
            except (UnsupportedOperation, RuntimeError):  # as on places that the input decides on
                return mixed(operands[first.node], call.shape)
        if kind is None:
            return self._decomposed(call, operands)
        return self._mixture(call, first, operands[first.node], vals)

    def _mixes_positions(
        self, layers: Sequence[tuple[Value, Sequence[int]]], operands: Mapping[fx.Node, Origin]
    ) -> bool:
        """Whether a product of matrices adds up positions: those that a mask leaves, neighbours.

        That is what masks do, and what matrices do that are no parameters, along other axes than
        the last. What a layer tells that reads the sums counts.
        """
        read = [(value, axes) for value, axes in layers if value.node in operands]
        others = [value for value, _ in layers if value.node not in operands]
        if len(read) != 1 or not others:
            return False
        ((value, axes),) = read
        last = any(axis % len(value.shape) == len(value.shape) - 1 for axis in axes)
        return all(
            is_chooser(other.node)
            or not (last or other.varies or self._constants.holds_parameters(other))
            for other in others
        )

    def _without_weighted_positions(
        self,
        call: Call,
        terms: tuple[list[str], str] | None,
        value: Value,
        axes: Sequence[int],
    ) -> Sequence[int]:
        """The axes along which an einsum of several tensors reads features.

        Positions that a vector of numbers which are no parameters weights are added up before.
        """
        if terms is None or len(terms[0]) < 3:
            return axes
        pairs = [*zip(call.values(), terms[0], strict=True)]
        own = next(letters for operand, letters in pairs if operand is value)
        told = {own[axis] for axis in axes}
        for letter in own[:-1]:
            beside = [pair for pair in pairs if letter in pair[1] and pair[0] is not value]
            if beside and all(
                letters == letter
                and not operand.varies
                and not self._constants.holds_parameters(operand)
                for operand, letters in beside
            ):
                told.discard(letter)
        return [axis for axis in axes if own[axis] in told] or axes

    def _add(self, told: Read | None) -> None:
        if told is not None:
            self.reads.append(told)

    def _elementwise(self, call: Call, operands: dict[fx.Node, Origin]) -> Origin | None:
        shape = call.shape
        fitting = [o for o in operands.values() if expands(o.shape, shape)]
        if call.name in _SCALES:
            fitting += [
                _numbered(value, fitting[0])
                for value in call.values()
                if not value.varies and expands(value.shape, shape) and fitting
                if not self._weights_positions(value)
            ]
        return met(fitting, shape) if fitting else None

    def _weights_positions(self, value: Value) -> bool:
        """Whether a constant factor is a mask, or numbers for positions that are no parameters."""
        if is_chooser(value.node):
            return True
        return value.shape[-1:] == (1,) and not self._constants.holds_parameters(value)

    def _index(self, value: Value) -> torch.Tensor | None:
        try:
            return None if value.varies else self._constants.of(value)
        except UnknownConstantError:
            return None

    def _mixture(self, call: Call, first: Value, origin: Origin, vals: Any) -> Found:
        """Reductions, pooling and the like: a layer where they add up what constants weight."""
        dims = call.arguments.get("dim") if "dim" in call.arguments else None
        dims = [dims] if isinstance(dims, int) else dims or range(len(origin.shape))
        axes = [axis % max(len(origin.shape), 1) for axis in dims]
        if call.name in _SUMS and not _is_statistic(call, axes):
            *own, factor = map(compact, origin.coordinates)
            weighted = [a for a in axes if factor.shape[a] > 1]
            if any(k.shape[a] > 1 for a in weighted for k in own):
                self._add(read(origin, weighted))
                return None

        def result(val: Any) -> Origin | None:
            if not carries_path(val):
                return None
            drops = val.ndim == 0 or (val.ndim < len(origin.shape) and "dim" in call.arguments)
            found = mixed(origin, val.shape, axes if drops else ())
            return found.with_all_along(origin, axes) if "dim" in call.arguments else found

        return result(vals) if isinstance(vals, torch.Tensor) else [result(val) for val in vals]

    def _without_contraction(
        self, call: Call, terms: tuple[list[str], str], operands: dict[fx.Node, Origin]
    ) -> Origin | None:
        """An einsum that contracts nothing: a transpose, a sum, a product element by element."""
        inputs, out = terms
        arranged = []
        for value, letters in zip(call.values(), inputs, strict=True):
            if value.node in operands:
                origin, own = operands[value.node], [a for a in out if a in letters]
                if len(set(letters)) < len(letters):
                    return None
                dropped = [axis for axis, a in enumerate(letters) if a not in out]
                left = [a for a in letters if a in out]
                sizes = torch.Size(origin.shape[letters.index(a)] for a in left)
                origin = mixed(origin, sizes, dropped)
                order = [left.index(a) for a in own]
                index = tuple(slice(None) if a in own else None for a in out)
                arranged.append(origin.each(partial(_arranged, order=order, index=index)))
        return met(arranged, call.shape)

    def _decomposed(self, call: Call, operands: dict[fx.Node, Origin]) -> Found:
        """What the calls make that an operator is made of; layers among them read the input."""
        try:
            program = decompose(call)
        except UnsupportedOperation:
            return None
        if program is None:
            return None
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
        given = dict(zip(placeholders, call.values(), strict=True))
        inner = {
            node: operands[value.node] for node, value in given.items() if value.node in operands
        }
        self.run(program.graph, program.attributes, inner, given)
        vals = call.node.meta["val"]
        if isinstance(vals, torch.Tensor):
            return self._origins.of(program.outputs[0][1])
        found = [self._origins.of(node) for _, node in program.outputs]
        results = iter([one if isinstance(one, Origin) else None for one in found])
        return [next(results) if isinstance(val, torch.Tensor) else None for val in vals]

    def _write(self, call: Call, found: Found) -> None:
        """Take note of what an in-place call wrote."""
        leaves = pytree.tree_leaves(call[str(written_argument(call.func))])
        node = leaves[0].node if leaves and isinstance(leaves[0], Value) else None
        if node is None:
            return
        shape = node.meta["val"].shape
        if isinstance(found, Origin):
            now = met([found], shape) if expands(found.shape, shape) else mixed(found, shape)
        elif isinstance(before := self._origins.of(node), Origin):
            now = nowhere(shape, before)
        else:
            return
        source = call.arguments.get("src")
        real = isinstance(source, Value) and not source.dtype.is_complex
        self._origins.write(node, now, real=real)


def _arranged(coordinates: torch.Tensor, order: list[int], index: Any) -> torch.Tensor:
    return coordinates.permute(order)[index]


def _numbered(value: Value, like: Origin) -> Origin:
    """A constant that tensors are multiplied by, with a number for each of its elements."""
    constant = nowhere(value.shape, like)
    if not (value.dtype.is_floating_point or value.dtype.is_complex):
        return constant  # a mask
    strides = value.node.meta["val"].stride()
    sizes = [size if stride else 1 for size, stride in zip(value.shape, strides, strict=True)]
    numbers = torch.arange(NOWHERE + 1, NOWHERE + 1 + torch.Size(sizes).numel()).view(sizes)
    return Origin(
        (*constant.coordinates[:-1], settled(numbers.expand(value.shape))), constant.mixed
    )


def _is_statistic(call: Call, axes: Sequence[int]) -> bool:
    """Whether a sum is broadcast back over what it added up."""
    shapes = [user.meta["val"].shape for user in call.node.users if _is_tensor(user)]
    kept = bool(call.arguments.get("keepdim"))
    return kept and any(
        len(shape) == len(call.shape) and any(shape[axis] > 1 for axis in axes) for shape in shapes
    )


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _samples(call: Call) -> bool:
    """Whether elements are interpolated at places that were computed."""
    return "grid_sampler" in call.name
