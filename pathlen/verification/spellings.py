"""Sixth check: the same model in other spellings has the same numbers.

The model is traced again by torch's own export and passes, and its recorded program is rewritten
at random (`respell`). What each of them gives on numbers is proved by running it; then it is
measured as if it were a model of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch.export import ExportedProgram, default_decompositions
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from pathlen.api import measure
from pathlen.lowering import lower
from pathlen.one_thread import unwarned
from pathlen.policy import Policy
from pathlen.report.layers import LayerRow
from pathlen.tracing import Recording, module_path
from pathlen.tracing.autograd_mode import autograd_mode
from pathlen.tracing.export import export_program, from_program
from pathlen.tracing.programs import without_guards
from pathlen.tracing.state import untouched
from pathlen.verification.respell import Respeller, Ways
from pathlen.verification.respelled import Respelled, named_like, record_again, run
from pathlen.verification.tally import Tally
from pathlen.verification.verdict import Check, Offence

MOST_CALLS = 1000
_RECURRENT = (  # torch's way lets one product read all steps; ours are units of each step
    torch.ops.aten.lstm.input,
    torch.ops.aten.gru.input,
    torch.ops.aten.rnn_tanh.input,
    torch.ops.aten.rnn_relu.input,
)
_NUMBERS = (
    "number of paths",
    "average path length",
    "normalized average path length",
    "number of active units",
)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a spelling comes to.

    Attributes:
        numbers: exact, in the order of `_NUMBERS`.
        modules: active units and normalized contribution by module path, in program order.
        status: see `TraceInfo`.
    """

    numbers: tuple[int | Fraction, ...]
    modules: dict[str, tuple[int, Fraction]]
    status: str


class Spellings:
    """Compares the numbers of a model with those of its other spellings.

    Args:
        recording: of the model.
        policy: what counts as a nonlinearity.
        input_axis: see `pathlen.trace`.
        seeds: of the random rewrites, one each.
    """

    def __init__(
        self,
        recording: Recording,
        policy: Policy,
        input_axis: int | Mapping[str, int] | None,
        seeds: Sequence[int],
    ) -> None:
        self._recording = recording
        self._policy = policy
        self._input_axis = input_axis
        self._seeds = seeds
        self._outputs: tuple[Any, ...] | None = None  # of the model, once they are needed
        self._tally = Tally(
            "spellings",
            "written in other ways that compute the same, the model has the same numbers",
            "numbers",
        )

    def check(
        self,
        model: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outputs: Any,
        inputs: list[Any],
    ) -> Check:
        """Measure the model in other spellings.

        Args:
            model: what was traced.
            args: its arguments.
            kwargs: its keyword arguments.
            outputs: which returned tensors count.
            inputs: the tensors that the model was given, one a placeholder.
        """
        calls = sum(node.op == "call_function" for node in self._recording.graph.nodes)
        if calls > MOST_CALLS:
            why = f"spellings are compared of up to {MOST_CALLS:,} calls, and here are {calls:,}"
            self._tally.leave(why, "model")
            return self._tally.check()
        self._own = self._measured(self._recording)
        with unwarned():
            known = [
                self._try(name, make, inputs)
                for name, make in self._ways(model, args, kwargs, outputs).items()
            ]
            if not all(known) or not known:  # else it is what core ATen is
                make = partial(_functionalized, self._recording, inputs)
                self._try("functionalized", make, inputs)
            self._rewrite(inputs)
        return self._tally.check()

    def _ways(
        self, model: Any, args: Any, kwargs: Any, outputs: Any
    ) -> dict[str, Callable[[], Recording]]:
        """How torch writes the model otherwise, by the name of the spelling."""
        ways: dict[str, Callable[[], Recording]] = {}
        if isinstance(model, (torch.nn.Module, ExportedProgram)):
            exported = _Exported(model, args, kwargs, outputs)
            ways["torch.export"] = exported.plain
            ways["torch.export, core ATen"] = exported.decomposed
        return ways

    def _try(self, name: str, make: Callable[[], Recording], inputs: list[Any]) -> bool:
        """Compare a spelling; False if it cannot be made or measured, or is another function."""
        try:
            spelled = named_like(make(), self._recording)
            if self._outputs is None:
                self._outputs = run(self._recording, inputs)
            if _differ(run(spelled, inputs), self._outputs):
                self._tally.note("not compared, it gives other outputs than the model", name)
                return False
            other = self._measured(spelled)
        except Exception as error:  # torch, and what it makes, raise whatever they raise
            self._tally.note(f"not compared, {_first_line(error)}", name)
            return False
        self._compare(name, other)
        return True

    def _rewrite(self, inputs: list[Any]) -> None:
        """Compare random rewrites; of one that differs, the fewest rewritten calls that do."""
        try:
            respeller = Respeller(self._recording, inputs)
        except Exception as error:
            self._tally.note(f"not compared, {_first_line(error)}", "rewritten")
            return
        for seed in (None, *self._seeds):
            name = "written plainly" if seed is None else f"rewritten, seed {seed}"
            try:
                ways = respeller.rewritten(seed)
                other = self._measured(respeller.record(ways))
                if self._differs(other):
                    ways, other = self._fewest(respeller, ways, other)
            except Exception as error:
                self._tally.note(f"not compared, {_first_line(error)}", name)
            else:
                self._compare(name, other, _told(ways))

    def _fewest(self, respeller: Respeller, ways: Ways, other: _Measured) -> tuple[Ways, _Measured]:
        """Halve the rewritten calls, as long as one half still makes a difference."""
        while len(ways) > 1:
            nodes = list(ways)
            half = len(nodes) // 2
            for part in (nodes[:half], nodes[half:]):
                fewer = {node: ways[node] for node in part}
                found = self._measured(respeller.record(fewer))
                if self._differs(found):
                    ways, other = fewer, found
                    break
            else:
                return ways, other
        return ways, other

    def _differs(self, other: _Measured) -> bool:
        exact = self._own.status == other.status == "exact"
        return exact and self._own.numbers != other.numbers

    def _measured(self, recording: Recording) -> _Measured:
        report = measure(lower(recording, self._policy, self._input_axis), exact=True)
        average, normalized = report.average_path_length, report.normalized_average_path_length
        return _Measured(
            numbers=(report.path_count, Fraction(average), Fraction(normalized), report.num_active),
            modules=self._by_module(report.layers),
            status=report.status,
        )

    def _by_module(self, rows: tuple[LayerRow, ...]) -> dict[str, tuple[int, Fraction]]:
        paths = {module_path(node) for node in self._recording.graph.nodes}
        found: dict[str, tuple[int, Fraction]] = {}
        for row in rows:
            path = row.name.split("#")[0]
            path = path if path in paths else path.rpartition(".")[0]
            active, contribution = found.get(path, (0, Fraction(0)))
            part = Fraction(row.normalized_contribution)
            found[path] = active + row.active, contribution + part
        return found

    def _compare(self, name: str, other: _Measured, told: str = "") -> None:
        """Compare numbers; where they differ, one spelling is measured wrong.

        Args:
            name: of the spelling.
            other: what it comes to.
            told: what was rewritten.
        """
        own = self._own
        if not own.status == other.status == "exact" and own.numbers != other.numbers:
            text = "other numbers, but a bound may be wider in one spelling than in another"
            self._tally.note(f"{text} ({own.status} as written, {other.status} here)", name)
            return
        differ = [n for n in range(len(_NUMBERS)) if own.numbers[n] != other.numbers[n]]
        offence = None
        if differ:
            said = "; ".join(
                f"{_NUMBERS[n]} {_shown(other.numbers[n])}, not {_shown(own.numbers[n])}"
                for n in differ
            )
            place, where = _first_difference(own, other)
            offence = Offence(f"spelling {name!r}", place, (), f"{said}{where}{told}", len(differ))
        self._tally.add(len(_NUMBERS), len(differ), offence)


class _Exported:
    """The spellings that torch.export gives of a model, which is exported once."""

    def __init__(self, model: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        self._model, self._arguments, self._outputs = model, (args, kwargs), outputs
        is_program = isinstance(model, ExportedProgram)
        self._program: Any = without_guards(model) if is_program else None

    def plain(self) -> Recording:
        if self._program is None:
            self._program = export_program(self._model, *self._arguments)
        return from_program(self._program, self._outputs)

    def decomposed(self) -> Recording:
        self.plain()
        with untouched(self._model), autograd_mode(gradients=True):
            table = default_decompositions()
            for kept in _RECURRENT:
                table.pop(kept, None)
            return from_program(self._program.run_decompositions(table), self._outputs)


def _differ(outputs: tuple[Any, ...], own: tuple[Any, ...]) -> bool:
    """Whether two programs gave other numbers, beyond rounding."""
    for found, expected in zip(outputs, own, strict=True):
        if not found.is_floating_point():
            continue
        scale = expected.abs().nan_to_num(posinf=0).max() if expected.numel() else 0
        if not torch.allclose(found, expected, rtol=0, atol=1e-3 * float(scale), equal_nan=True):
            return True
    return False


def _functionalized(recording: Recording, inputs: list[Any]) -> Recording:
    """Without writes, in operators below autograd."""
    if any(node.target in _RECURRENT for node in recording.graph.nodes):
        raise ValueError("recurrent layers would be taken apart in torch's way")
    program = Respelled(recording, {}).eval()
    with torch.no_grad():
        found = make_fx(functionalize(program, remove="mutations"))(*inputs)
    return record_again(found, inputs, recording, "functionalized")


def _first_difference(own: _Measured, other: _Measured) -> tuple[str, str]:
    """The first module whose active units or contribution differ, and what differs there."""
    for position, what in enumerate(("active units", "normalized contribution")):
        for path, found in own.modules.items():
            there = other.modules.get(path, (0, Fraction(0)))
            if found[position] != there[position]:
                pair = f"{_shown(there[position])}, not {_shown(found[position])}"
                return path, f"; the first place with other {what} is module {path!r}: {pair}"
    return "", ""


def _told(ways: Ways) -> str:
    """What was rewritten, where it is little."""
    calls = [
        f"{node.target} of module {module_path(node)!r} by {name!r}"
        for node, (name, _) in ways.items()
    ]
    more = f" and {len(calls) - 3} more" if len(calls) > 3 else ""
    return f"; rewritten were {', '.join(calls[:3])}{more}" if calls else ""


def _shown(number: int | Fraction) -> str:
    whole = int(number) == number
    return f"{int(number):,}" if whole and number < 10**12 else f"{float(number):.6g}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
