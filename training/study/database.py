"""The file of a study's store: a SQLite database, its tables, and transactions.

Only the process that was asked to carry out a study opens it, never a worker: SQLite relies on file
locks that network file systems keep badly, and on a cluster only this one machine needs them to
work.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pathlen.errors import StudyError
from pathlen.training.study.owners import is_dead
from pathlen.whole_files import is_file

FILE = "study.sqlite"
VERSION = 1
"""Of the tables: raised whenever an older program could not read them."""

BUSY = 60.0
"""Seconds to wait for another process that writes."""

_TABLES = """
CREATE TABLE runs (
    key TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    recipe TEXT NOT NULL,
    needs TEXT,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'running', 'done', 'failed')),
    owner TEXT,
    heartbeat REAL,
    started REAL,
    ended REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    host TEXT,
    error TEXT,
    traceback TEXT,
    summary TEXT
);
CREATE TABLE rows (
    key TEXT NOT NULL REFERENCES runs (key),
    epoch INTEGER NOT NULL,
    phase TEXT NOT NULL,
    metrics TEXT NOT NULL,
    PRIMARY KEY (key, epoch)
);
CREATE TABLE members (
    position INTEGER PRIMARY KEY,
    labels TEXT NOT NULL,
    seed INTEGER NOT NULL,
    key TEXT NOT NULL REFERENCES runs (key)
);
CREATE TABLE study (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Database:
    """The open file of a store.

    Args:
        folder: Of the study.
        create: Whether to make the file if there is none.

    Raises:
        StudyError: There is none, it was written by a newer version, or it is something else.
    """

    def __init__(self, folder: Path, create: bool = False) -> None:
        self.path = folder / FILE
        if not create and not is_file(self.path):
            raise StudyError(
                f"{folder} holds no study: {FILE} is not there; begin with: pathlen study run"
            )
        try:
            self._open()
        except sqlite3.Error as error:
            raise StudyError(f"{self.path} cannot be used as the store: {error}") from error

    def _open(self) -> None:
        # no transactions but those that are begun here
        self._database = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        self._database.create_function("is_dead", 1, is_dead)
        # a file from elsewhere may define views and triggers, which call no function of ours
        self._database.execute("PRAGMA trusted_schema = OFF")
        try:
            self._check_version()
            self._use_wal()
            with self._transaction():
                if self._version() == 0:
                    for statement in filter(str.strip, _TABLES.split(";")):
                        self._database.execute(statement)
                    self._database.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            self._database.close()
            raise

    def _version(self) -> int:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _check_version(self) -> None:
        version = self._version()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version > VERSION:
            raise StudyError(
                f"{self.path} was written by a newer pathlen (version {version} of the store, and"
                f" this one reads {VERSION}): update pathlen, or use another folder"
            )
        if version == 0 and tables:
            raise StudyError(f"{self.path} is a database of another program; use another folder")

    def _use_wal(self) -> None:
        """Let others read while one writes; the change itself does not wait by SQLite's timeout."""
        until = time.monotonic() + BUSY
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = NORMAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; the lock is taken at the beginning, so it is waited for."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell what SQLite cannot do, for a full disk or a damaged file, as an error of a study.

        Raises:
            StudyError: In place of SQLite's.
        """
        try:
            yield
        except sqlite3.Error as error:
            raise StudyError(
                f"{self.path} cannot be used any more: {error}; the runs themselves are in runs/:"
                " mend that, or move the file away, and the same study goes on with them"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        """Use it, and close it at the end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()
