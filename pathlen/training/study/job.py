"""A run to be carried out, as the process that begins it and the process of the run see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pathlen.training.study.plan import PlannedRun

GRACE = 20.0
"""Seconds that a run has to end its step and save, once it is asked to stop."""

STOPPED, BUSY = 130, 75
"""Codes that the process of a run ends with: it was asked to; another one works in the folder."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be carried out.

    Attributes:
        run: Of the plan.
        home: Folder of the study.
        command: The file whose disappearance asks the run to stop.
        threads: Of the process.
        cwd: Folder that relative paths in the recipe start from.
    """

    run: PlannedRun
    home: Path
    command: Path
    threads: int
    cwd: str
