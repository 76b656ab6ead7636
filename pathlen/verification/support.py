"""The support of the Jacobian of one call, unit by unit.

Row by row: all elements of one unit of the result get random cotangents, and one backward pass
tells on which units of the operands any of them depends. What autograd cannot see - integers, and
steps such as rounding, whose derivative is 0 - is seen by changing all elements of one unit of the
operands.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np
import torch

from pathlen.lowering.labels import CONSTANT
from pathlen.lowering.values import Value
from pathlen.verification.cuts import Cut, results
from pathlen.verification.draws import Drawn, Draws
from pathlen.verification.replay import Tensors

_ROUNDING = 1e-9  # of the largest derivative: what is smaller proves no dependence


class Support:
    """Dependence of units of the result of a call on units of its operands.

    Args:
        cut: the call as a function of its operands, or of the entry of a region.
        rows: units of the result, `CONSTANT` among them for elements that should have none.
        units: of the operands, ascending.
        base: the model's own tensors.
        draws: gives random numbers.

    Attributes:
        surely: whether a row depends on a unit by more than rounding.  # bool[rows, units]
        maybe: whether any derivative was not exactly 0.  # bool[rows, units]
        differentiable: whether autograd has a formula for the call.
    """

    def __init__(
        self, cut: Cut, rows: Sequence[int], units: np.ndarray, base: Tensors, draws: Draws
    ) -> None:
        self.surely = np.zeros((len(rows), len(units)), dtype=np.bool_)
        self.maybe = self.surely.copy()
        self.differentiable = True
        self._cut = replace(cut, generic=True)
        self._base = base
        self._draws = draws
        self._rows = len(rows)
        self._units = len(units)
        self._at = {id(v): positions(v.labels, units) for v in cut.values}
        ordered = np.argsort(np.array(rows, dtype=np.int64))
        ascending = np.array(rows, dtype=np.int64)[ordered]
        self._row_of = [
            positions(v.labels, ascending, constants=True, rename=ordered)
            for v in results(cut.step)
        ]

    def floating(self) -> list[Value]:
        """The values that have derivatives."""
        return [v for v in self._cut.values if v.dtype.is_floating_point or v.dtype.is_complex]

    def add_jacobian(self, drawn: Drawn) -> None:
        """Add what the derivatives at one draw show.

        Raises:
            Exception: whatever the operator raises for these operands.
        """
        ends = {id(v): drawn[id(v)].detach().clone().requires_grad_() for v in self.floating()}
        with torch.enable_grad():
            given = self._cut({**drawn, **ends}, self._base)
        outputs = [(row, y) for row, y in zip(self._row_of, given, strict=True) if y.requires_grad]
        if not outputs or not ends:
            self.differentiable = self.differentiable and not ends
            return
        size = np.zeros((self._rows, self._units))
        for row in range(self._rows):
            cotangents = [self._cotangent(y, at == row) for at, y in outputs]
            gradients = torch.autograd.grad(
                [y for _, y in outputs],
                list(ends.values()),
                cotangents,
                retain_graph=True,
                allow_unused=True,
            )
            for key, gradient in zip(ends, gradients, strict=True):
                if gradient is not None:
                    size[row] = np.maximum(size[row], self._by_unit(gradient, self._at[key]))
        self.surely |= size > _ROUNDING * size.max(initial=0)
        self.maybe |= size > 0

    def add_changes(self, drawn: Drawn, columns: Sequence[int], proof: AbstractSet[int]) -> None:
        """Add what changes when all elements of one unit of the operands are changed.

        Args:
            drawn: the operands.
            columns: positions of the units to change.
            proof: those of which a change is a dependence for sure.

        Raises:
            Exception: whatever the operator raises for these operands.
        """
        with torch.no_grad():
            before = self._cut(drawn, self._base)
            for column in columns:
                for sign in (1.0, -1.0):
                    changed = self._changed(drawn, column, sign)
                    if changed is not None:
                        after = self._cut(changed, self._base)
                        self._compare(before, after, column, proves=column in proof)

    def _changed(self, drawn: Drawn, column: int, sign: float) -> Drawn | None:
        """The operands with other elements of one unit: far up or down, or other integers."""
        changed = dict(drawn)
        for value in self._cut.values:
            tensor = drawn[id(value)]
            at = (self._at[id(value)] == column).view(tensor.shape)
            if tensor.is_floating_point() or tensor.is_complex():
                step = sign * (3 + self._draws.normal(tensor).abs())
                changed[id(value)] = torch.where(at, tensor + step, tensor)
            else:
                other = self._in_range(value, drawn)
                changed[id(value)] = torch.where(at, other, tensor)
        return changed

    def _in_range(self, value: Value, drawn: Drawn) -> torch.Tensor:
        """Integers that the call accepts, from as large a range as it does."""
        tensor = drawn[id(value)]
        tables = [self._base[v].shape for v in self._cut.constants()]
        sizes = {size for shape in tables for size in shape} | {int(tensor.max()) + 1, 2}
        for below in sorted(sizes, reverse=True):
            other = self._draws.indices(tensor, below)
            try:
                self._cut({**drawn, id(value): other}, self._base)
            except (RuntimeError, IndexError):
                continue
            return other
        return self._draws.shuffled(tensor)

    def _compare(
        self,
        before: list[torch.Tensor],
        after: list[torch.Tensor],
        column: int,
        *,
        proves: bool,
    ) -> None:
        for at, one, other in zip(self._row_of, before, after, strict=True):
            if one.shape != other.shape:  # there are more of them now, or fewer
                self.maybe[np.unique(at[at < self._rows].numpy()), column] = True
                continue
            close = torch.isclose(one, other, rtol=_ROUNDING, atol=1e-300, equal_nan=True)
            rows = np.unique(at[~close.reshape(-1)].numpy())
            rows = rows[rows < self._rows]
            self.surely[rows, column] |= proves
            self.maybe[rows, column] = True

    def _cotangent(self, like: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return self._draws.normal(like) * at.view(like.shape)

    def _by_unit(self, gradient: torch.Tensor, at: torch.Tensor) -> np.ndarray:
        """Largest derivative by any element of each unit.

        Returns:
            Largest absolute values.  # (units,)
        """
        size = gradient.abs().nan_to_num(0, 0, 0).reshape(-1)
        largest = torch.zeros(self._units + 1, dtype=size.dtype)
        largest.scatter_reduce_(0, at, size, "amax")
        found: np.ndarray = largest[: self._units].double().numpy()
        return found


def positions(
    labels: torch.Tensor,
    units: np.ndarray,
    *,
    constants: bool = False,
    rename: np.ndarray | None = None,
) -> torch.Tensor:
    """Position of each element's unit among `units` (ascending), their number where it is none.

    Args:
        labels: of a tensor.
        units: ascending.
        constants: whether elements without a unit have a position, that of `CONSTANT`.
        rename: what to call each position.

    Returns:
        Positions, flat.  # (elements,)
    """
    flat = labels.reshape(-1).numpy()
    position = np.searchsorted(units, flat)
    inside = position < len(units)
    inside[inside] = units[position[inside]] == flat[inside]
    if not constants:
        inside &= flat != CONSTANT
    if rename is not None:
        position[inside] = rename[position[inside]]
    return torch.from_numpy(np.where(inside, position, len(units)))
