"""Models as they come beside the same models decomposed to core ATen: the numbers must be equal."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

import pathlen
from benchmarks.sweep import Record
from pathlen.errors import PathlenError
from tests.zoo.subject import Subject

NUMBERS = ("log10 paths", "average", "normalized", "active")
REASONS: dict[str, str] = {}  # of numbers that differ, by model


def both_spellings(subject: Subject) -> Record:
    """The numbers of a model and of its decomposed form, or why it has no such form."""
    own = pathlen.measure(
        subject.model, subject.args, subject.kwargs, input_axis=subject.input_axis
    )
    record: Record = {"status": own.status, "numbers": _numbers(own)}
    try:
        program = torch.export.export(
            subject.model, subject.args, dict(subject.kwargs), strict=False
        ).run_decompositions()
    except Exception as error:  # a model that torch.export cannot do is a result too
        return record | {"export_failure": f"{type(error).__name__}: {_first_line(error)}"}
    try:
        core = pathlen.measure(program, input_axis=subject.input_axis)
    except PathlenError as error:
        return record | {"core_failure": f"{type(error).__name__}: {_first_line(error)}"}
    return record | {"core_status": core.status, "core_numbers": _numbers(core)}


def spellings_section(records: Sequence[Record], titles: dict[str, str]) -> str:
    """The section of the page on these records; empty where there are none."""
    found = [record for record in records if record["task"][0] == "spellings"]
    if not found:
        return ""
    rows = []
    for zoo, title in titles.items():
        outcomes = Counter(_outcome(record) for record in found if record["task"][1] == zoo)
        if outcomes:
            counts = (outcomes[key] for key in ("equal", "differs", "failed", "none"))
            rows.append((title, str(outcomes.total()), *map(str, counts)))
    header = ("zoo", "run", "equal", "differ", "failed", "not exported")
    listed = [
        (titles[record["task"][1]], record["task"][2], _told(record))
        for record in sorted(found, key=lambda record: record["task"])
        if _outcome(record) != "equal"
    ]
    parts = ["## Two spellings", _INTRODUCTION, _table(header, rows)]
    if listed:
        parts.append(_table(("zoo", "model", "what"), listed))
    return "\n\n".join(parts)


_INTRODUCTION = """\
What `python benchmarks/coverage.py --spellings` measured: each model as it comes, and decomposed
to core ATen by `torch.export.export(model).run_decompositions()`. Paths, both averages and active
units must be equal."""


def _numbers(report: Any) -> dict[str, float]:
    values = (
        report.log10_path_count,
        report.average_path_length,
        report.normalized_average_path_length,
        report.num_active,
    )
    return dict(zip(NUMBERS, map(float, values), strict=True))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0][:160]


def _outcome(record: Record) -> str:
    if "export_failure" in record:
        return "none"
    if "failure" in record or "core_failure" in record:
        return "failed"
    return "differs" if _differing(record) else "equal"


def _differing(record: Record) -> list[str]:
    """Names of the numbers that are not the same but for rounding."""
    own, core = record["numbers"], record["core_numbers"]
    return [name for name in NUMBERS if not math.isclose(own[name], core[name], rel_tol=1e-9)]


def _told(record: Record) -> str:
    """What is to be said of a record that is not equal."""
    for key, where in (
        ("export_failure", "torch.export"),
        ("core_failure", "decomposed"),
        ("failure", "as it comes"),
    ):
        if key in record:
            return f"{where}: {record[key]}"
    own, core = record["numbers"], record["core_numbers"]
    found = [f"{name} {own[name]:.6g}, {core[name]:.6g}" for name in _differing(record)]
    return "; ".join([*found, REASONS.get(record["task"][2], "cause not known yet")])


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
