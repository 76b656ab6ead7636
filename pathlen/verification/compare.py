"""First check: the recorded program, run on real tensors, gives what the model gives.

The model runs once more, under a dispatch mode that runs the recorded program beside it, call by
call: so the first call whose result deviates is known, and with it where the tracer went wrong.
"""

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pathlen.errors import VerificationError
from pathlen.one_thread import unwarned
from pathlen.tracing import Recording, module_path
from pathlen.tracing.arguments import named_tensors, select_outputs
from pathlen.tracing.autograd_mode import as_given, autograd_mode
from pathlen.tracing.own_numbers import own_numbers
from pathlen.tracing.state import untouched
from pathlen.verification.replay import Replay, input_tensors
from pathlen.verification.verdict import Check, Offence

_ROUNDING = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-4, torch.complex64: 1e-4}
_SILENT = (torch.ops.aten.detach.default, torch.ops.aten.lift_fresh.default)  # one tracer or other
_UNFILLED = "empty"  # what is made without values cannot be compared


def compare_with_model(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], recording: Recording, outputs: Any
) -> Check:
    """Run the model and its recording on the same inputs.

    Args:
        model: a callable; a module runs in eval mode and is left as it was.
        args: its arguments.
        kwargs: its keyword arguments.
        recording: of the model.
        outputs: which returned tensors count.

    Raises:
        VerificationError: the arguments are not those that were recorded, or the model raises.
    """
    clean = {name: tensor.detach().clone() for name, tensor in recording.attributes.items()}
    inputs = pytree.tree_map_only(torch.Tensor, _copied, input_tensors(recording, args, kwargs))
    replay = Replay(recording, inputs, clean, plain=True)
    beside = _Beside(replay)
    state = _buffers(model)
    gradients = recording.takes_gradients
    with untouched(model), own_numbers(), autograd_mode(gradients), unwarned():
        args, kwargs = pytree.tree_map_only(
            torch.Tensor, lambda own: as_given(_copied(own), own), (args, kwargs)
        )
        try:
            with beside:
                returned = model(*args, **kwargs)
        except Exception as error:
            raise VerificationError(
                f"{type(model).__name__} raised {type(error).__name__} when it was run on the"
                f" arguments: {error}"
            ) from error
        finally:
            with torch.no_grad():
                for buffer, before in state:
                    buffer.copy_(before)
        beside.finish()
    found = select_outputs(named_tensors(returned, ""), outputs)
    return _check([tensor for _, tensor in found], replay, recording, beside)


def _check(
    own: list[torch.Tensor], replay: Replay, recording: Recording, beside: "_Beside"
) -> Check:
    replayed = replay.outputs()
    deviations = [deviation(a, b) for a, b in zip(own, replayed, strict=True)]
    wrong = [n for n, (far, allowed) in enumerate(deviations) if not far <= allowed]
    largest = max((far for far, _ in deviations), default=0.0)
    worst = None
    if wrong:
        number = max(wrong, key=lambda n: deviations[n][0])
        name, node = recording.outputs[number]
        what = f"output {name!r} deviates by {deviations[number][0]:.3g}; {beside.first()}"
        shape = tuple(replayed[number].shape)
        worst = Offence("output", module_path(node), shape, what, deviations[number][0])
    return Check(
        name="replay",
        what="the recorded program gives the model's own outputs",
        count=len(own),
        unit="outputs",
        wrong=len(wrong),
        worst=worst,
        places=len(wrong),
        notes=(
            f"largest deviation {largest:.3g}; {beside.compared:,} calls were followed one by one"
            f"{beside.until()}",
        ),
    )


class _Beside(TorchDispatchMode):
    """Runs a replay beside a model, a call for each call of the model's."""

    def __init__(self, replay: Replay) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.compared = 0
        self._replay = replay
        self._calls = replay.calls()
        self._first = ""
        self._apart = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace != "prim" and not self._first and not self._apart:
            self._follow(func, result)
        return result

    def _follow(self, func: Any, result: Any) -> None:
        if func in _SILENT:
            return
        node = next((node for node in self._calls if node.target not in _SILENT), None)
        target: Any = None if node is None else node.target
        if node is None or target is not func:
            recorded = "its end" if node is None else f"{target} (node {node.name!r})"
            self._apart = f"the model calls {func} where the recording has {recorded}"
            return
        self.compared += 1
        if _UNFILLED in func._schema.name:
            return
        replayed = self._replay.nodes[node]
        if torch.Tag.nondeterministic_seeded in func.tags:
            _same_numbers(replayed, result)
            return
        for one, other in zip(pytree.tree_leaves(result), pytree.tree_leaves(replayed)):  # noqa: B905
            if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
                far, allowed = deviation(one, other)
                if not far <= allowed:
                    place = module_path(node) or "(top level)"
                    self._first = (
                        f"the first call to deviate is {node.target} in module {place!r} (node"
                        f" {node.name!r}, result {tuple(other.shape)}, by {far:.3g})"
                    )
                    return

    def finish(self) -> None:
        """Run what is left of the program."""
        for _ in self._calls:
            pass

    def until(self) -> str:
        """Why calls were not followed to the end."""
        return f", until {self._apart}" if self._apart else ""

    def first(self) -> str:
        """Where the two went apart."""
        return self._first or self._apart or "every call that was followed agrees"


def deviation(one: torch.Tensor, other: torch.Tensor) -> tuple[float, float]:
    """The largest deviation of two tensors, and how much rounding explains."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf"), 0.0
    if one.numel() == 0:
        return 0.0, 0.0
    dtype = one.dtype
    wide = torch.complex128 if dtype.is_complex else torch.float64
    a, b = one.detach().to(wide), other.detach().to(wide)
    same = (a == b) | (a.isnan() & b.isnan())
    far = torch.where(same, 0.0, (a - b).abs().nan_to_num(float("inf")))
    scale = a.abs().nan_to_num(0, 0, 0).max()
    return float(far.max()), _ROUNDING.get(dtype, 1e-9) * float(scale) + 1e-12


def _same_numbers(replayed: Any, result: Any) -> None:
    """Give the replay the random numbers that the model drew."""
    for own, other in zip(pytree.tree_leaves(replayed), pytree.tree_leaves(result), strict=True):
        if isinstance(own, torch.Tensor) and own.shape == other.shape:
            own.copy_(other)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _buffers(model: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Buffers of a module with copies of them, to be put back if forward writes to them."""
    if not isinstance(model, torch.nn.Module):
        return []
    return [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
