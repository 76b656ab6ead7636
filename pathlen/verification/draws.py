"""Random operands for a call: the support of a Jacobian is united over several draws.

The first draw is the model's own operands. Then all floating-point operands are drawn anew,
parameters and other constants too, because paths are those of generic weights and inputs.
"""

from collections.abc import Sequence

import torch

from pathlen.lowering.values import Value
from pathlen.verification.replay import Tensors

Drawn = dict[int, torch.Tensor]


class Draws:
    """Draws of operands.

    Args:
        seed: of the random numbers.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def operands(
        self,
        values: Sequence[Value],
        constants: Sequence[Value],
        base: Tensors,
        number: int,
        below: int = 0,
    ) -> Drawn:
        """Tensors for one draw, by identity of the value.

        Args:
            values: what the call is a function of.
            constants: what else it reads; masks and indices from the input among them.
            base: the model's own tensors.
            number: of the draw; 0 is the model's own.
            below: indices run through all integers below it; 0 only reorders them, and masks, of
                which then as many elements are true.
        """
        if number == 0:
            return {id(value): base[value] for value in values}
        drawn = {id(value): self._path(base[value], number) for value in values}
        for value in constants:
            tensor = base[value]
            if _is_floating(tensor) and not value.varies:
                drawn[id(value)] = self._constant(tensor)
            elif tensor.dtype == torch.bool and len(values) == 1 and not value.varies:
                drawn[id(value)] = self.indices(tensor, 2)  # a constant mask may hide a whole unit
            elif value.varies:  # a mask, an index or a choice that the input decides on
                drawn[id(value)] = self._chosen(tensor, number, below)
        return drawn

    def _chosen(self, tensor: torch.Tensor, number: int, below: int) -> torch.Tensor:
        """Choices that the input decides on: other ones at each draw, so that all are seen."""
        if tensor.dtype == torch.bool:
            small = _without_repeats(tensor)  # masks of whole rows stay such
            chosen = self.indices(small, 2) if below else self.shuffled(small)
            return chosen.expand(tensor.shape).clone()
        if not below or _is_floating(tensor):
            return self.shuffled(tensor)
        turn = (torch.arange(tensor.numel()) + number) % below
        return turn.view(tensor.shape).to(tensor.dtype)

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        """Normal random numbers, complex ones for a complex tensor, with the same strides."""
        numbers = torch.randn(like.shape, dtype=like.dtype, generator=self.generator)
        return torch.empty_like(like).copy_(numbers)

    def shuffled(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same elements in another order: as many are true, and indices stay in range."""
        order = torch.randperm(tensor.numel(), generator=self.generator)
        return tensor.reshape(-1)[order].reshape(tensor.shape)

    def indices(self, like: torch.Tensor, below: int) -> torch.Tensor:
        """Random integers from 0 to below a bound."""
        if like.dtype == torch.bool:
            return torch.randint(0, 2, like.shape, generator=self.generator).bool()
        return torch.randint(0, below, like.shape, generator=self.generator).to(like.dtype)

    def order(self, count: int) -> list[int]:
        """A random order of so many things."""
        return [int(i) for i in torch.randperm(count, generator=self.generator)]

    def _path(self, tensor: torch.Tensor, number: int) -> torch.Tensor:
        if not _is_floating(tensor):
            return tensor  # integers are followed by changing them, see `support`
        if number % 3 == 1:
            return self.normal(tensor)
        if number % 3 == 2 and tensor.isfinite().all():
            return tensor * (1 + 0.3 * self.normal(tensor)) + 0.1 * self.normal(tensor)
        numbers = torch.rand(tensor.shape, dtype=tensor.dtype, generator=self.generator)
        return torch.empty_like(tensor).copy_(0.1 + 0.8 * numbers)

    def _constant(self, tensor: torch.Tensor) -> torch.Tensor:
        """Matrices are normal; vectors positive, for variances are among them."""
        if tensor.ndim > 1:
            return self.normal(tensor)
        return 0.5 + torch.rand(tensor.shape, dtype=tensor.dtype, generator=self.generator)


def _without_repeats(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor cut to length 1 along the axes along which it does not vary."""
    for axis in range(tensor.ndim):
        first = tensor.narrow(axis, 0, min(tensor.shape[axis], 1))
        tensor = first if bool((tensor == first).all()) else tensor
    return tensor


def _is_floating(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
