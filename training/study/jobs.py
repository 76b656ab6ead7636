"""What goes to a worker and what comes back: plain values, that any scheduler can carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

GRACE = 20.0
"""Seconds that a run has to end its step and save, once it is asked to stop."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be carried out.

    Attributes:
        key: Of the run.
        recipe: Its settings.
        needs: Key of the dense run whose weights it begins with.
        home: Folder of the study, absolute.
        token: What the file `token` in that folder holds; who reads another sees another folder.
        owner: Of the run; if a file of its name (see `stop_file`) appears, the run is to stop.
        threads: Of the process.
        cwd: Folder that relative paths in the recipe start from.
    """

    key: str
    recipe: dict[str, Any]
    needs: str | None
    home: str
    token: str
    owner: str
    threads: int = 1
    cwd: str | None = None

    @property
    def folder(self) -> Path:
        """Of the study."""
        return Path(self.home)

    @property
    def runs(self) -> Path:
        """The folder of the folders of runs."""
        return self.folder / "runs"

    @property
    def stop(self) -> Path:
        """The file that asks the run to stop."""
        return stop_file(self.folder, self.owner)

    def plain(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The job of plain values."""
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went.

    Attributes:
        state: "done", "failed", "stopped" (it can go on), or "unreachable" (there is no such
            folder where the worker is).
        error: What went wrong, in a line or some.
        traceback: Where.
        summary: Of the run, as in summary.json.
        rows: Of metrics, one an epoch.
        host: The machine of the worker.
    """

    state: Literal["done", "failed", "stopped", "unreachable"]
    error: str = ""
    traceback: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    host: str = ""

    def plain(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The outcome of plain values."""
        return cls(**plain)


def stop_file(folder: Path, owner: str) -> Path:
    """The file whose appearance asks all runs of an owner to stop."""
    return folder / "stopped" / owner.replace("/", "-")
