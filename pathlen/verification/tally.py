"""Counts what was checked and keeps the worst offender, for one check of a verdict."""

from dataclasses import dataclass, field

from pathlen.lowering.steps import Step
from pathlen.tracing import module_path
from pathlen.verification.verdict import Check, Offence

_MOST_NAMED = 5


@dataclass(slots=True)
class Tally:
    """One check in the making.

    Attributes:
        name: see `Check`.
        what: see `Check`.
        unit: see `Check`.
        count: things checked so far.
        wrong: those that do not agree.
        unchecked: see `Check`.
    """

    name: str
    what: str
    unit: str
    count: int = 0
    wrong: int = 0
    unchecked: int = 0
    _offences: list[Offence] = field(default_factory=list)
    _notes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, count: int, wrong: int = 0, offence: Offence | None = None) -> None:
        """Take note of some things checked at one place, and of the worst among them."""
        self.count += count
        self.wrong += wrong
        if offence is not None:
            self._offences.append(offence)

    def note(self, text: str, place: str) -> None:
        """Take note of something to tell: places with the same text are told together."""
        self._notes.setdefault(text, []).append(place)

    def leave(self, error: Exception | str, place: str) -> None:
        """Take note of something that could not be checked, and why."""
        self.unchecked += 1
        why = error
        if isinstance(error, Exception):
            lines = str(error).strip().splitlines()
            why = f"{type(error).__name__}: {lines[0] if lines else ''}"
        self.note(f"NOT CHECKED, {why}"[:200], place)

    def check(self) -> Check:
        """The finished check."""
        worst = max(self._offences, key=lambda offence: offence.size, default=None)
        notes = [f"{text}: {_listed(places)}" for text, places in self._notes.items()]
        return Check(
            name=self.name,
            what=self.what,
            count=self.count,
            unit=self.unit,
            wrong=self.wrong,
            worst=worst,
            places=len(self._offences),
            unchecked=self.unchecked,
            notes=tuple(notes),
        )


def offence(step: Step, what: str, size: float) -> Offence:
    """Something that is wrong with a step."""
    path = module_path(step.call.node)
    return Offence(step.call.operation, path, tuple(step.call.shape), what, size)


def place(step: Step) -> str:
    """A step in a few words."""
    return f"{step.call.operation} in {module_path(step.call.node) or '(top level)'}"


def _listed(places: list[str]) -> str:
    distinct = list(dict.fromkeys(places))
    named = ", ".join(distinct[:_MOST_NAMED])
    more = len(distinct) - _MOST_NAMED
    return f"{len(places)} calls ({named}{f' and {more} more' if more > 0 else ''})"
