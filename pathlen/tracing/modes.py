"""What the dispatch modes that record, count and draw have in common."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """A mode that sees higher-order operators too, and loads no compiler when it is entered."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch imports torch._dynamo before the first dispatch, to turn it off inside."""
        return False  # nothing is compiled while something records (`untouched_process`)


def tensors_among(nest: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among arguments or results of an operator, and in lists among them."""
    found = []
    for item in nest:
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif isinstance(item, (list, tuple)):
            found += tensors_among(item)
    return found
