"""What a verification found: one line a check, the worst offender of each, and a verdict."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pathlen.errors import VerificationError
from pathlen.printable import message


@dataclass(frozen=True, slots=True)
class Offence:
    """One thing that is wrong, and where.

    Attributes:
        operation: the operation ("conv2d"), or "output" for an output of the model.
        module: path of the module that calls it, "" for the model itself.
        shape: of its result.
        what: what is wrong with it.
        size: how wrong: offences of a check are compared by it.
    """

    operation: str
    module: str
    shape: tuple[int, ...]
    what: str
    size: float = 1.0

    def __str__(self) -> str:
        place = f"module {self.module!r}" if self.module else "the model itself"
        return f"{self.operation} in {place}, result {self.shape}: {self.what}"


@dataclass(frozen=True, slots=True)
class Check:
    """One of the things that were checked.

    Attributes:
        name: short, the same in every verdict.
        what: what was compared with what, in words.
        count: how many things were compared.
        unit: what `count` counts ("outputs", "pairs of units").
        wrong: how many of them do not agree.
        worst: the worst of those, None if there is none.
        places: how many operations are wrong (or outputs, for checks of outputs).
        unchecked: how many operations (or draws) could not be looked at; the notes say why.
        notes: what was sampled, left out or found beside, in words.
    """

    name: str
    what: str
    count: int
    unit: str
    wrong: int = 0
    worst: Offence | None = None
    places: int = 0
    unchecked: int = 0
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.wrong == 0

    def __str__(self) -> str:
        mark = "ok   " if self.ok else "WRONG"
        lines = [f"  {mark}  {self.name}: {self.what}", f"         {self.count:,} {self.unit}"]
        if self.worst is not None:
            lines[1] += f", {self.wrong:,} wrong, at {self.places:,} places"
            lines.append(f"         worst: {self.worst}")
        lines += [f"         {note}" for note in self.notes]
        return message("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the path graph of a model is right, as far as it was checked.

    Attributes:
        ok: whether no check found anything wrong.
        checks: what was checked, each with its worst offender.
        model: class of the model.
        graph: the path graph in one line.
        tracer: which tracer made it.
        status: "exact", "example", "bound" or "opaque"; see `TraceInfo`.
        samples: random draws that each comparison of connections could take.
        seed: of the random draws.
        seconds: time spent.
    """

    ok: bool
    checks: tuple[Check, ...]
    model: str
    graph: str
    tracer: str
    status: str
    samples: int
    seed: int
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        head = "right" if self.ok else "WRONG"
        lines = [
            f"{self.model}: the path graph is {head}",
            f"  {self.graph}",
            f"  {self.tracer}, status {self.status}; up to {self.samples} draws, seed {self.seed};"
            f" {sum(self.seconds.values()):.1f} s",
        ]
        return message("\n".join([*lines, *map(str, self.checks)]))

    @property
    def complete(self) -> bool:
        """Whether nothing had to be left unchecked (samples count as checked)."""
        return all(check.unchecked == 0 for check in self.checks)

    def check(self, name: str) -> Check:
        """One of the checks, by its name.

        Raises:
            VerificationError: there is no such check; the message lists those that there are.
        """
        for check in self.checks:
            if check.name == name:
                return check
        names = ", ".join(repr(check.name) for check in self.checks)
        raise VerificationError(f"a verdict has no check {name!r}; it has {names}")

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain data, ready for JSON."""
        record = asdict(self)
        record["complete"] = self.complete
        record["checks"] = [{**asdict(check), "ok": check.ok} for check in self.checks]
        record["seconds"] = dict(self.seconds)
        return record

    def raise_if_wrong(self) -> None:
        """Do nothing if all is right.

        Raises:
            VerificationError: something is wrong; the message is the whole verdict.
        """
        if not self.ok:
            raise VerificationError(
                f"{self}\nThis is a fault of pathlen or of a rule that you registered, not of the"
                " model: please report it with the lines above."
            )
