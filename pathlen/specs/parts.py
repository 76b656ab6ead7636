"""What all forms of a SPEC share: example inputs, what a SPEC gives, and errors of users' code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathlen.errors import SpecError

if TYPE_CHECKING:
    import torch

FORMS = (
    "torchvision:NAME, timm:NAME, package.module:CALLABLE, path/file.py:CALLABLE or path/model.pt2"
)


@dataclass(frozen=True, slots=True)
class InputShape:
    """Shape and dtype of one example input, as ``--input`` names them."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @classmethod
    def parse(cls, text: str) -> InputShape:
        """Read "1,3,224,224" or "1,16:int64".

        Raises:
            SpecError: The text is not of that form.
        """
        match = re.fullmatch(r"\s*(\d{1,18}(?:\s*,\s*\d{1,18})*)\s*(?::\s*(\w+)\s*)?", text)
        if match is None:
            raise SpecError(
                f"input {text!r} is not a shape; write sizes separated by commas, with a dtype "
                "after a colon if it is not float32: 1,3,224,224 or 1,16:int64"
            )
        shape = tuple(int(size) for size in match[1].split(","))
        if 0 in shape:
            raise SpecError(f"input {text!r} is empty; every size must be at least 1")
        return cls(shape, match[2] or "float32")

    def make(self, device: str) -> torch.Tensor:
        """Make a tensor: normal random numbers, or zeros if the dtype is not a float.

        Zeros, because they are a valid index of any embedding.

        Raises:
            SpecError: torch has no such dtype, or cannot make the tensor: it is too large.
        """
        import torch

        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise SpecError(f"torch has no dtype {self.dtype!r}; try float32, int64 or bool")
        try:
            if not dtype.is_floating_point:
                return torch.zeros(self.shape, dtype=dtype, device=device)
            generator = None if device == "meta" else torch.Generator(device).manual_seed(0)
            return torch.randn(self.shape, generator=generator, device=device).to(dtype)
        except RuntimeError as error:
            sizes = ",".join(map(str, self.shape))
            raise SpecError(f"an input of {sizes}:{self.dtype} cannot be made: {error}") from error


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that a SPEC named.

    Attributes:
        model: An nn.Module or an ExportedProgram.
        args: Its example arguments, or None if they are not known.
        kwargs: Its example keyword arguments.
    """

    model: Any
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any]


def only(wanted: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of the wanted arguments that have one of these names."""
    return {name: wanted[name] for name in names if name in wanted}


def failed(what: str, error: Exception) -> SpecError:
    """Make the error for code of the user's that raised, with the place where it did."""
    place = ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and not isinstance(error, SyntaxError):
        place = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
    return SpecError(f"{what} raised {type(error).__name__}: {error}{place}")
