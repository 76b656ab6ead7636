"""The store of a study: what is to be done, by whom, and what came out.

Several studies may work on one store at once. Every change is one short transaction, and a run is
claimed by one statement that finds and marks it, so no two of them get the same run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pathlen.errors import StudyError
from pathlen.json_text import read_json
from pathlen.printable import shown
from pathlen.training.study.database import Database
from pathlen.training.study.finished import Finished
from pathlen.training.study.plan import Plan

LEASE = 60.0
"""Seconds without a sign of life after which another study takes over a run."""

# One statement: SQLite lets one process write at a time, so what it finds it also marks.
_CLAIM = """
UPDATE runs SET state = 'running', owner = :owner, heartbeat = :now, started = :now,
    attempts = attempts + 1, ended = NULL, error = NULL, traceback = NULL
WHERE key = (
    SELECT key FROM runs JOIN mine USING (key)
    WHERE (state = 'pending'
        OR state = 'running' AND owner <> :owner AND (heartbeat < :expired OR is_dead(owner)))
    AND (needs IS NULL OR needs IN (SELECT key FROM runs WHERE state = 'done'))
    ORDER BY mine.place LIMIT 1)
RETURNING key, recipe, needs
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that is this study's to carry out.

    Attributes:
        key: Of the run.
        recipe: Its settings.
        needs: Key of the dense run that it begins with.
    """

    key: str
    recipe: dict[str, Any]
    needs: str | None


class Store(Database):
    """An open store: what studies do with its file."""

    # ------------------------------------------------------------------ what is to be done

    def take_up(self, plan: Plan) -> None:
        """Make the plan's runs what this store's owner claims, and what it shows; keep the others.

        Raises:
            StudyError: The store is that of a study of another name.
        """
        study = plan.study
        with self._transaction():
            known = self.facts.get("study", {}).get("name", study.name)
            if known != study.name:
                raise StudyError(
                    f"{self.path} is the store of the study {shown(known)}, not of {study.name!r};"
                    " use another folder"
                )
            self._database.executemany(
                "INSERT INTO runs (key, position, recipe, needs) VALUES (?, ?, ?, ?)"
                # what a recipe may change without being another run, as its machine, may be new
                " ON CONFLICT (key) DO UPDATE SET position = excluded.position,"
                " recipe = excluded.recipe",
                [
                    (run.key, place, run.recipe.model_dump_json(), run.needs)
                    for place, run in enumerate(plan.runs)
                ],
            )
            self._database.execute("DELETE FROM members")
            self._database.executemany(
                "INSERT INTO members VALUES (?, ?, ?, ?)",
                [
                    (place, json.dumps(dict(one.labels)), one.seed, one.key)
                    for place, one in enumerate(plan.members)
                ],
            )
            self._database.execute(
                "INSERT OR REPLACE INTO study VALUES ('study', ?)", [study.model_dump_json()]
            )
        self._database.execute("CREATE TEMP TABLE mine (place INTEGER PRIMARY KEY, key TEXT)")
        self._database.executemany(
            "INSERT INTO mine VALUES (?, ?)", [(i, run.key) for i, run in enumerate(plan.runs)]
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the study as a whole."""
        found = self._database.execute("SELECT name, value FROM study")
        return {row["name"]: self._read(row["value"]) for row in found}

    def note(self, name: str, value: Any) -> None:
        """Keep a fact of the study as a whole."""
        self._database.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", [name, _json(value)])

    def claim(self, owner: str) -> Claim | None:
        """Mark the next run as this owner's; None if there is none now.

        A run of an owner that is dead, or gave no sign of life within the lease, is taken over.
        """
        now = time.time()
        facts = {"owner": owner, "now": now, "expired": now - LEASE}
        # all rows are fetched: only then is the statement over, and what it changed kept
        found = self._database.execute(_CLAIM, facts).fetchall()
        if not found:
            return None
        (row,) = found
        return Claim(row["key"], self._read(row["recipe"]), row["needs"])

    def beat(self, owner: str) -> None:
        """Give a sign of life for all runs of an owner."""
        self._database.execute(
            "UPDATE runs SET heartbeat = ? WHERE owner = ? AND state = 'running'",
            [time.time(), owner],
        )

    def adopt(self, finished: Mapping[str, Finished]) -> None:
        """Take runs of the plan for done that are finished elsewhere, and are not done here.

        A dense run that others still have to begin with is left to do: its weights are not kept.
        """
        with self._transaction():
            for run in reversed(self._mine()):  # runs before those that they need
                known = finished.get(run["key"])
                if known is None or run["state"] == "done" or self._is_needed(run["key"]):
                    continue
                now, seconds = time.time(), known.took or known.summary["seconds"]
                self._database.execute(
                    "UPDATE runs SET state = 'done', owner = NULL, started = ?, ended = ?,"
                    " attempts = 1, host = NULL, error = NULL, traceback = NULL, summary = ?"
                    " WHERE key = ?",
                    [now - seconds, now, _json(known.whole_summary), known.key],
                )
                self._write_rows(known.key, known.rows)

    def _mine(self) -> list[Any]:
        return self._database.execute(
            "SELECT key, state FROM runs JOIN mine USING (key) ORDER BY mine.place"
        ).fetchall()

    def _is_needed(self, key: str) -> bool:
        (number,) = self._database.execute(
            "SELECT count(*) FROM runs JOIN mine USING (key) WHERE needs = ? AND state <> 'done'",
            [key],
        ).fetchone()
        return bool(number)

    def retry_failed(self) -> int:
        """Set failed runs of the plan to be done again; how many."""
        return self._database.execute(
            "UPDATE runs SET state = 'pending', error = NULL, traceback = NULL"
            " WHERE state = 'failed' AND key IN (SELECT key FROM mine)"
        ).rowcount

    def counts(self) -> dict[str, int]:
        """How many runs of the plan are in each state."""
        found = self._database.execute(
            "SELECT state, count(*) AS number FROM runs JOIN mine USING (key) GROUP BY state"
        )
        return {row["state"]: row["number"] for row in found}

    # ------------------------------------------------------------------ what came out

    def finish(
        self, key: str, owner: str, host: str, summary: Mapping[str, Any], rows: Sequence[Any]
    ) -> bool:
        """Write what a run came to; False if another study has taken it over meanwhile."""
        with self._transaction():
            changed = self._database.execute(
                "UPDATE runs SET state = 'done', ended = ?, host = ?, summary = ?"
                " WHERE key = ? AND owner = ? AND state = 'running'",
                [time.time(), host, _json(summary), key, owner],
            ).rowcount
            if changed:
                self._write_rows(key, rows)
        return bool(changed)

    def _write_rows(self, key: str, rows: Sequence[Any]) -> None:
        self._database.execute("DELETE FROM rows WHERE key = ?", [key])
        self._database.executemany(
            "INSERT INTO rows VALUES (?, ?, ?, ?)",
            [(key, row["epoch"], row["phase"], _json(row)) for row in rows],
        )

    def fail(self, key: str, owner: str, host: str, error: str, traceback: str) -> bool:
        """Write why a run failed, and that those that need it cannot run; False as for `finish`."""
        with self._transaction():
            changed = self._database.execute(
                "UPDATE runs SET state = 'failed', ended = ?, host = ?, error = ?, traceback = ?"
                " WHERE key = ? AND owner = ? AND state = 'running'",
                [time.time(), host, error, traceback, key, owner],
            ).rowcount
            if changed:
                self._fail_dependent()
        return bool(changed)

    def _fail_dependent(self) -> None:
        self._database.execute(
            "UPDATE runs SET state = 'failed',"
            " error = 'the dense run ' || needs || ' that it begins with failed'"
            " WHERE state = 'pending'"
            " AND needs IN (SELECT key FROM runs WHERE state = 'failed')"
        )

    def fail_dependent(self) -> None:
        """Mark runs whose dense run failed earlier; they were added since."""
        with self._transaction():
            self._fail_dependent()

    def release(self, owner: str, keys: Iterable[str] | None = None) -> None:
        """Give runs of an owner back, all of them if no keys are given."""
        where = "owner = ? AND state = 'running'"
        change = f"UPDATE runs SET state = 'pending', owner = NULL WHERE {where}"
        with self._transaction():
            if keys is None:
                self._database.execute(change, [owner])
            else:
                self._database.executemany(f"{change} AND key = ?", [(owner, k) for k in keys])

    def runs(self) -> list[dict[str, Any]]:
        """Runs of the plan that was taken up last, with dense runs that they share."""
        found = self._database.execute(
            "SELECT * FROM runs WHERE key IN (SELECT key FROM members) OR key IN"
            " (SELECT needs FROM runs JOIN members USING (key)) ORDER BY position"
        )
        runs = [dict(row) for row in found]
        for run in runs:
            run["recipe"] = self._read(run["recipe"])
            run["summary"] = self._read(run["summary"]) if run["summary"] else None
        return runs

    def members(self) -> list[dict[str, Any]]:
        """Places in the grid, in order: labels, seed, key."""
        found = self._database.execute("SELECT labels, seed, key FROM members ORDER BY position")
        return [dict(row) | {"labels": self._read(row["labels"])} for row in found]

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The rows of metrics of a run, one an epoch."""
        found = self._database.execute(
            "SELECT metrics FROM rows WHERE key = ? ORDER BY epoch", [key]
        )
        return [self._read(row["metrics"]) for row in found]

    def _read(self, text: str) -> Any:
        return read_json(text, f"{self.path}: what it holds", StudyError)

    def summary(self, key: str) -> dict[str, Any] | None:
        """How a run ended, None if it did not."""
        found = self._database.execute("SELECT summary FROM runs WHERE key = ?", [key]).fetchone()
        return self._read(found["summary"]) if found and found["summary"] else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
