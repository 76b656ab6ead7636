"""Operations that nothing is known of: run at random inputs, to see what depends on what.

All elements of one unit are changed at once, and every element of the result that changes depends
on that unit. Unlike automatic differentiation this needs no derivative formula, which operators
written by users often lack; what it finds includes the support of the Jacobian at these points.
The cost is one run of the operator per unit and sample.
"""

from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.constants import UnknownConstantError
from pathlen.lowering.context import Lowering
from pathlen.lowering.labels import (
    CONSTANT,
    collapse,
    constant_labels,
    distinct,
    is_position_axis,
    sets_of_rows,
)
from pathlen.lowering.operations import call_by_name, functional
from pathlen.lowering.values import Call, Value, carries_path

_COLLECTIVE = ("c10d", "c10d_functional", "_c10d_functional", "_c10d_functional_autograd")
_SAMPLES = 3
_MOST_UNITS = 1024
_MOST_WORK = 1 << 28  # steps in all runs together
_SEED = 2211_17180


def probe(call: Call, lowering: Lowering) -> Any:
    """Lower a call by the dependencies that random inputs show.

    One new unit for each set of units that an element of the result depends on, and for each
    position along the axes on which the operands' units vary: those are taken for features.

    Integers and masks among several results carry no path.

    Raises:
        UnsupportedOperation: the operator does not run on random inputs here, or is too large.
    """
    if getattr(call.func, "namespace", "") in _COLLECTIVE:
        # Alone it would wait for the other processes; and what they hold is not in this trace.
        raise UnsupportedOperation("it exchanges tensors with other processes")
    vals, structure = pytree.tree_flatten(call.node.meta["val"])
    if not any(map(carries_path, vals)):
        raise UnsupportedOperation("no rule, no decomposition, and it returns no numbers")
    units = distinct(torch.cat([v.labels.reshape(-1) for v in call.values() if v.is_path]))
    elements = sum(val.numel() for val in vals if carries_path(val))
    work = elements * _steps_an_element(call)
    if len(units) > _MOST_UNITS or len(units) * _SAMPLES * work > _MOST_WORK:
        raise UnsupportedOperation("no rule, no decomposition, and it is too large to be probed")
    generator = torch.Generator().manual_seed(_SEED)
    depends = np.zeros((elements, len(units)), dtype=np.bool_)
    bent = np.zeros(elements, dtype=np.bool_)
    for _ in range(_SAMPLES):
        operator = _Runnable(call, lowering, generator)
        depends |= operator.dependencies(units)
        bent |= operator.nonlinear()
    lowering.remark(
        f"{lowering.site(call)}: no rule; connections are those seen at {_SAMPLES} random inputs,"
        " and nonlinearities inside that mix units are not counted (see pathlen.register_rule)",
        "bound",
    )
    lowering.uncertain(call, "the gain of an operator without a rule")
    results, start = [], 0
    for val in vals:
        if not carries_path(val):
            is_tensor = isinstance(val, torch.Tensor)
            labels = constant_labels(val.shape) if is_tensor else None
        else:
            own = slice(start, start := start + val.numel())
            labels = _units(call, val.shape, depends[own], bent[own], units, lowering)
        results.append(val if labels is None else lowering.result(call, labels, dtype=val.dtype))
    return pytree.tree_unflatten(results, structure)


def _of_matrices(call: Call) -> bool:
    """Whether an operator may want matrices that can be inverted or have a square root."""
    return "linalg" in call.name or "cholesky" in call.name


def _steps_an_element(call: Call) -> int:
    """About how many steps each element of a result takes: a row of the matrix, if there is one."""
    if not _of_matrices(call):
        return 1
    return max(int(size) for value in call.values() for size in (*value.shape[-2:], 1))


class _Runnable:
    """The operator at one random input."""

    def __init__(self, call: Call, lowering: Lowering, generator: torch.Generator) -> None:
        self._func = functional(call.func)
        self._call = call
        self._generator = generator
        vals = pytree.tree_leaves(call.node.meta["val"])
        self._sizes = [val.numel() for val in vals if carries_path(val)]
        self._inputs = {id(v): self._tensor(v, lowering) for v in call.values()}
        self._base = self._run(self._inputs)

    def dependencies(self, units: np.ndarray) -> np.ndarray:
        """Which elements of the result (rows) change with each unit (columns)."""
        columns = []
        for unit in units:
            changed = {
                id(v): torch.where(v.labels == int(unit), self._like(v), self._inputs[id(v)])
                if v.is_path
                else self._inputs[id(v)]
                for v in self._call.values()
            }
            columns.append((self._run(changed) != self._base).numpy())
        return np.stack(columns, axis=1)

    def nonlinear(self) -> np.ndarray:
        """Which elements of the result are no affine function of the inputs."""
        other = {
            id(v): self._like(v) if v.is_path else self._inputs[id(v)] for v in self._call.values()
        }
        middle = {
            key: (value + self._inputs[key]) / 2 if value.is_floating_point() else value
            for key, value in other.items()
        }
        ends = (self._base + self._run(other)) / 2
        gap = (self._run(middle) - ends).abs()
        return (gap > 1e-3 * (1 + ends.abs())).numpy()

    def _run(self, inputs: dict[int, torch.Tensor]) -> torch.Tensor:
        """All numbers that the operator returns, one after another."""
        arguments = self._call.replace_values(lambda value: inputs[id(value)])
        try:
            with torch.no_grad():
                result = call_by_name(self._func, arguments)
        except Exception as error:  # an operator of the user's may raise anything
            told = str(error).partition("\n")[0].partition(". ")[0]
            raise UnsupportedOperation(
                f"no rule, no decomposition, and it cannot be run to probe it:"
                f" {type(error).__name__}: {told}"
            ) from error
        found = [
            leaf.reshape(-1).to(torch.complex128 if leaf.is_complex() else torch.float64)
            for leaf in pytree.tree_leaves(result)
            if carries_path(leaf)
        ]
        if [leaf.numel() for leaf in found] != self._sizes:
            raise UnsupportedOperation(
                "no rule, no decomposition, and what it returns at random inputs has other shapes"
            )
        return torch.cat(found)

    def _tensor(self, value: Value, lowering: Lowering) -> torch.Tensor:
        if not value.varies:
            try:
                return lowering.constants.of(value)
            except UnknownConstantError:
                pass  # on the meta device: random values do as well
        return self._like(value)

    def _like(self, value: Value) -> torch.Tensor:
        shape = tuple(value.shape)
        if not value.dtype.is_floating_point:
            return torch.zeros(shape, dtype=value.dtype)
        random = torch.randn(shape, generator=self._generator)
        if _of_matrices(self._call) and len(shape) > 1 and shape[-1] == shape[-2]:
            random += (2.5 * shape[-1] ** 0.5 + 2) * torch.eye(shape[-1])  # positive definite
        return random.to(value.dtype)


def _units(
    call: Call,
    shape: torch.Size,
    depends: np.ndarray,
    bent: np.ndarray,
    units: np.ndarray,
    lowering: Lowering,
) -> torch.Tensor:
    """Adds the units of a result of a probed call; returns its labels."""
    features = np.zeros(shape, dtype=np.int64)
    for axis in _feature_axes(call, len(shape)):
        along = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        features = features * shape[axis] + along
    keys = np.concatenate([features.reshape(-1, 1), np.packbits(depends, axis=1)], axis=1)
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    rows = np.where(depends[first], units, CONSTANT)
    sets = sets_of_rows(rows)
    alive = sets.sizes > 0
    active = np.zeros(len(first), dtype=np.bool_)
    np.logical_or.at(active, number.reshape(-1), bent)
    active &= sets.sizes == 1  # a function of one unit; what mixes units is a layer or a product
    lowering.layer(call)
    hubs = lowering.builder.hubs(type(sets)(sets.members, sets.sizes[alive]))
    activity = active[alive] & lowering.policy.counts("activation")
    nodes = np.full(len(first), CONSTANT, dtype=np.int64)
    nodes[alive] = lowering.builder.units(hubs, activity.astype(np.float64))
    return collapse(torch.from_numpy(nodes[number.reshape(-1)]).view(shape))


def _feature_axes(call: Call, dimensions: int) -> list[int]:
    """Axes of a result on which units of an operand of as many axes vary; else the last."""
    found = {
        axis
        for value in call.values()
        if value.is_path and value.labels.ndim == dimensions
        for axis in range(dimensions)
        if not is_position_axis(value.labels, axis)
    }
    return sorted(found) or [dimensions - 1] * (dimensions > 0)
