"""What a run leaves beside its weights: one row an epoch, and how it ended, checked when read.

summary.json names the run that it belongs to, by the key of its recipe, and has a digest of both
files; folders of releases before that lack both, and are read where nothing contradicts them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathlen.errors import CheckpointError, PathlenError
from pathlen.json_text import read_bytes, read_json, read_json_object
from pathlen.printable import shown

SUMMARY, ROWS = "summary.json", "metrics.jsonl"
RUN, DIGEST = "run", "digest"
"""Entries of summary.json that are for its reader."""

LONGEST_SUMMARY = 1 << 24
_MEND = "; the same `pathlen train` writes it anew from the checkpoint, if there is one"


def rows_text(history: Sequence[Mapping[str, Any]]) -> str:
    """The rows as metrics.jsonl has them."""
    return "".join(json.dumps(row) + "\n" for row in history)


def summary_text(summary: Mapping[str, Any], run: str, history: Sequence[Mapping[str, Any]]) -> str:
    """How a run ended as summary.json has it."""
    signed = {**summary, RUN: run, DIGEST: _digest(summary, history)}
    return json.dumps(signed, indent=2) + "\n"


def read_records(folder: Path, run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read how a run ended, and its rows.

    Args:
        folder: Of the run.
        run: Key of its recipe; see :func:`pathlen.training.study.keys.run_key`.

    Returns:
        The summary and the rows, as `train` gives them.

    Raises:
        CheckpointError: A file is not there, damaged, or of another run.
    """
    path = folder / SUMMARY
    summary = read_json_object(path, CheckpointError, LONGEST_SUMMARY)
    check_run(path, summary.pop(RUN, None), run)
    phases = summary.get("phases")
    if not isinstance(phases, dict) or not isinstance(summary.get("metric"), str):
        raise CheckpointError(f"{path} is damaged: it has not what a summary has{_MEND}")
    for name, row in phases.items():
        _check_row(row, f"{path}, phase {shown(name)}", CheckpointError)
    digest = summary.pop(DIGEST, None)
    path = folder / ROWS
    data = read_bytes(path, CheckpointError)
    rows = [
        read_json(line, f"{path}, line {number}", CheckpointError)
        for number, line in enumerate(data.splitlines(), 1)
    ]
    check_rows(rows, str(path), CheckpointError)
    if {row["phase"]: row for row in rows} != phases:
        raise CheckpointError(f"{path} is of another run than {SUMMARY}, or was altered{_MEND}")
    if digest not in (None, _digest(summary, rows)):
        raise CheckpointError(f"{folder / SUMMARY} or {path} was altered{_MEND}")
    return summary, rows


def check_run(path: Path, found: object, run: str) -> None:
    """Compare the key that a file has with that of the run; one without is taken for the run's.

    Raises:
        CheckpointError: It is of another run.
    """
    if found is not None and found != run:
        raise CheckpointError(
            f"{path} is of another run ({shown(found, 40)}) than the recipe.yaml beside it ({run}):"
            " put back the one that belongs there, or remove it"
        )


def check_rows(rows: Sequence[Any], where: str, refusal: type[PathlenError]) -> None:
    """Look at the rows of a run: each tells its epoch, its phase and numbers.

    Raises:
        PathlenError: A `refusal`.
    """
    for number, row in enumerate(rows, 1):
        _check_row(row, f"{where}, row {number}", refusal)
        if row["epoch"] != number:
            raise refusal(
                f"{where}, row {number}: this is the row of epoch {shown(row['epoch'])}; rows are"
                " missing, or of another run"
            )


def _check_row(row: Any, where: str, refusal: type[PathlenError]) -> None:
    if not isinstance(row, dict):
        raise refusal(f"{where}: {shown(row)} is no mapping of names to numbers")
    wrong = [
        name
        for name, value in row.items()
        if not (isinstance(value, str) if name == "phase" else _is_number(value))
    ]
    wrong += [name for name in ("epoch", "phase", "step", "seconds") if name not in row]
    if wrong:
        found = shown(row[wrong[0]]) if wrong[0] in row else "missing"
        raise refusal(f"{where}: {shown(wrong[0])} is {found}, and should be a number or a phase")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _digest(summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Of all that they say but how long it took, which differs each time."""
    parts = [{**summary, "phases": None}, *history]
    plain = [{name: part[name] for name in part if name != "seconds"} for part in parts]
    text = json.dumps(plain, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
