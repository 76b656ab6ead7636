"""Rewrites a recorded program at random, and proves on numbers that it computes the same."""

from functools import partial
from typing import Any

import torch
from torch import fx

from pathlen.tracing import Recording
from pathlen.verification.compare import deviation
from pathlen.verification.detours import DETOURS, DETOURS_IN_PARTS, read_by_layers
from pathlen.verification.respelled import (
    Call,
    Respelled,
    Spelling,
    Storage,
    record_again,
    run,
)
from pathlen.verification.rewrites import RULES, aten, result_of
from pathlen.verification.rewrites_back import RULES_BACK

_SHARE = 0.8  # of the calls that a rule fits are rewritten
_SHARE_OF_DETOURS = 0.4
_WRITING = ("in place", "out of place")


Ways = dict[fx.Node, tuple[str, Spelling]]
"""How calls are made otherwise, by node, with the names of what is done."""


class Respeller:
    """Makes other spellings of a recorded program.

    Args:
        recording: the program.
        inputs: tensors to prove them on, one a placeholder.

    Raises:
        Exception: whatever the program raises.
    """

    def __init__(self, recording: Recording, inputs: list[Any]) -> None:
        self._recording = recording
        self._inputs = [inputs, _drawn(inputs)]
        self._storage = Storage()
        self._run({}, 0, self._storage.see)
        self._order = {node: n for n, node in enumerate(recording.graph.nodes)}
        self._matters = _between_inputs_and_outputs(recording)

    def rewritten(self, seed: int | None) -> Ways:
        """A spelling that computes the same, as far as running it tells.

        Args:
            seed: of the choice; None writes plainly, wherever it can, what was written out.

        Raises:
            ValueError: what was rewritten computes something else.
            Exception: whatever it raises.
        """
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        chosen: Ways = {}
        for node in self._recording.graph.nodes:
            if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
                continue
            found = self._choose(node, generator, chosen) if node in self._matters else None
            if found is not None:
                chosen[node] = found
        for number in range(len(self._inputs)):
            chosen = self._same(chosen, number)
        return self._proved(chosen)

    def _choose(
        self, node: fx.Node, generator: torch.Generator | None, chosen: Ways
    ) -> tuple[str, Spelling] | None:
        """One of the ways to write a call otherwise, or None."""

        def drawn(count: int) -> int:
            return int(torch.randint(count, (), generator=generator))

        tag = torch.Tag.nondeterministic_seeded in node.target.tags  # type: ignore[union-attr]
        result = result_of(node)
        if tag or result is None:
            return None
        back = [(rule.__name__, way) for rule in RULES_BACK if (way := rule(node)) is not None]
        if generator is None:
            return back[0] if back else None
        ways = [(rule.__name__, way) for rule in RULES if (way := rule(node)) is not None]
        ways += back
        ways += self._in_place(node, chosen)
        name = ""
        spelling: Spelling = _plain
        read = [chosen[operand][0] for operand in node.all_input_nodes if operand in chosen]
        if any(_detours(name) & DETOURS_IN_PARTS.keys() for name in read):
            ways = []  # a layer reads it as it is
        if ways and torch.rand((), generator=generator) < _SHARE:
            name, spelling = ways[drawn(len(ways))]
        is_free = not self._storage.of[node] & self._storage.written
        if (
            is_free
            and name not in _WRITING
            and result.ndim
            and torch.rand((), generator=generator) < _SHARE_OF_DETOURS
        ):
            detours = [*DETOURS, *(DETOURS_IN_PARTS if read_by_layers(node) else ())]
            detour = detours[drawn(len(detours))]
            axis = drawn(result.ndim)
            name = ", ".join(filter(None, [name, detour]))
            return name, _with_detour(spelling, detour, axis)
        return (name, spelling) if name else None

    def _in_place(self, node: fx.Node, chosen: Ways) -> list[tuple[str, Spelling]]:
        """relu_(h) for relu(h) where nothing reads h again, and the other way round.

        What a detour was made of is not written to, as no detour is made of what is written to.
        """
        operand = node.args[0] if node.args else None
        if not isinstance(operand, fx.Node) or not self._is_read_last(operand, node):
            return []
        own = self._storage.of[operand]
        if any(
            self._storage.of[other] & own and _detours(name) for other, (name, _) in chosen.items()
        ):
            return []
        name, overload = node.target._schema.name.split("::")[1], node.target._overloadname  # type: ignore[union-attr]
        other = name[:-1] if name.endswith("_") else f"{name}_"
        if name == "detach" or torch.Tag.inplace_view in node.target.tags:  # type: ignore[union-attr]
            return []
        packet = getattr(aten, other, None)
        written = getattr(packet, overload, None)
        before, after = result_of(operand), result_of(node)
        if written is None or before is None or after is None:
            return []
        if before.shape != after.shape or before.dtype != after.dtype:
            return []
        return [("out of place" if name.endswith("_") else "in place", _calling(written))]

    def _is_read_last(self, operand: fx.Node, reader: fx.Node) -> bool:
        """Whether the memory of an operand is the program's own and nothing else reads it later."""
        own = self._storage.of.get(operand, set())
        for node, storages in self._storage.of.items():
            if node is reader or not storages & own:
                continue
            if node.op in ("placeholder", "get_attr"):
                return False
            if self._order[node] > self._order[reader] and not _comes_from(node, reader):
                return False
            if self._order[node] < self._order[reader]:
                later = [u for u in node.users if self._order[u] > self._order[reader]]
                if later or any(node is output for _, output in self._recording.outputs):
                    return False
        return bool(own)

    def record(self, ways: Ways) -> Recording:
        """The program in another spelling, recorded again.

        Raises:
            Exception: whatever the program raises on tensors without data.
        """
        program = Respelled(self._recording, _spellings(ways))
        return record_again(program, self._inputs[0], self._recording, "rewritten")

    def _same(self, chosen: Ways, number: int) -> Ways:
        """The calls that come out the same, each written otherwise beside the one recorded."""
        same = dict(chosen)

        def look(call: Call, spelling: Spelling) -> Any:
            own = call.plain()
            try:
                close = _close(own, spelling(call))
            except Exception:  # a rule that torch refuses here is none
                close = False
            if not close:
                del same[call.node]
            return own

        looking: dict[fx.Node, Spelling] = {
            node: partial(look, spelling=spelling)
            for node, (name, spelling) in chosen.items()
            if name not in _WRITING  # these show in the whole program alone
        }
        self._run(looking, number)
        return same

    def _proved(self, ways: Ways) -> Ways:
        """All of the ways, or without those that hinder others if they do not go together.

        A call that writes in place may hide what another way reads; a detour has other strides.
        """
        for left_out in ((), ("in place",), ("in place", *DETOURS, *DETOURS_IN_PARTS)):
            kept = {
                node: (name, way)
                for node, (name, way) in ways.items()
                if not set(name.split(", ")) & set(left_out)
            }
            try:
                self._prove(kept)
            except Exception as error:  # whatever an operator raises
                failure = error
            else:
                return kept
        raise failure

    def _prove(self, ways: Ways) -> None:
        for number in range(len(self._inputs)):
            own = self._run({}, number)
            other = self._run(_spellings(ways), number)
            if not all(map(_close, own, other)):
                raise ValueError("rewritten, the program computes something else")

    def _run(self, spellings: dict[fx.Node, Spelling], number: int, watch: Any = None) -> Any:
        return run(self._recording, self._inputs[number], spellings, watch)


def _between_inputs_and_outputs(recording: Recording) -> set[fx.Node]:
    """The calls whose results inputs decide on and outputs depend on.

    What is left out has no part in the graph: constants, which may be parameters that a copy would
    tell apart, and results of which only the shape is read.
    """
    reached = {node for node in recording.graph.nodes if node.op == "placeholder"}
    for node in recording.graph.nodes:
        if any(operand in reached for operand in node.all_input_nodes):
            reached.add(node)
    read, queue = set[fx.Node](), [node for _, node in recording.outputs]
    while queue:
        node = queue.pop()
        if node in read:
            continue
        read.add(node)
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.name.endswith("_like"):
            queue += node.all_input_nodes
        # what is written to memory that is read counts as read
        queue += [user for user in node.users if _writes(user)]
    return reached & read


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _spellings(ways: Ways) -> dict[fx.Node, Spelling]:
    return {node: spelling for node, (_, spelling) in ways.items()}


def _detours(name: str) -> set[str]:
    """The detours among what is done."""
    return set(name.split(", ")) & {*DETOURS, *DETOURS_IN_PARTS}


def _plain(call: Call) -> Any:
    return call.plain()


def _with_detour(spelling: Spelling, detour: str, axis: int) -> Spelling:
    return lambda call: {**DETOURS, **DETOURS_IN_PARTS}[detour](spelling(call), axis)


def _calling(written: Any) -> Spelling:
    return lambda call: written(*call.args, **call.kwargs)


def _comes_from(node: fx.Node, source: fx.Node) -> bool:
    """Whether a node has its memory from another one: a view of it, or what is written to it."""
    seen: list[fx.Node] = [node]
    while seen:
        one = seen.pop()
        if one is source:
            return True
        seen += one.all_input_nodes[:1]
    return False


def _close(one: Any, other: Any) -> bool:
    far, allowed = deviation(one, other)
    return far <= allowed


def _drawn(inputs: list[Any]) -> list[Any]:
    """Other inputs: normal random numbers in place of floating-point ones."""
    generator = torch.Generator().manual_seed(1)

    def draw(tensor: torch.Tensor) -> torch.Tensor:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)

    return [draw(t) if isinstance(t, torch.Tensor) else t for t in inputs]
