"""The folder of a run.

recipe.yaml             the recipe with all of its values
checkpoint.safetensors  everything that the rest of the run depends on
metrics.jsonl, .csv     one row an epoch
tensorboard/            the same for TensorBoard, if asked for
dense.safetensors       weights when linearization began
model.safetensors       weights at the end
summary.json            how it ended
attempt.json            who began it last, if a study did; see :mod:`pathlen.training.study.folder`
.lock                   while a process works in it; see :mod:`pathlen.training.folder_lock`
and what the task keeps beside the weights, such as tokenizer.json

The files carry the key of the recipe (:func:`pathlen.training.study.keys.run_key`), by which one
that belongs to another run is told.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathlen.errors import CheckpointError, SettingsError
from pathlen.printable import spreadsheet_cell
from pathlen.training.code_key import code_key, warn_of_other_code
from pathlen.training.files import code_of_file, load_tree, save_tree, write_text
from pathlen.training.folder_lock import FILE as LOCK
from pathlen.training.folder_lock import FolderLock
from pathlen.training.recipe import Recipe
from pathlen.training.recipe_file import differences, dump_recipe, load_recipe
from pathlen.training.records import ROWS, SUMMARY, rows_text, summary_text
from pathlen.training.study.keys import run_key
from pathlen.whole_files import UNFINISHED

ATTEMPT = "attempt.json"
"""What a study keeps in the folder of a run, from before the run begins."""

_MAY_CHANGE = ("machine.", "checkpoint_steps", "tensorboard")
_MAY_NOT = ("machine.precision", "machine.channels_last", "machine.compile")


class RunFolder:
    """Where a run keeps what it makes. Only the first process of several writes.

    Args:
        path: The folder; it is made if it is not there.
        recipe: Of the run.
        lock: Of the folder, if it is locked already; who did that also lets go of it.

    Raises:
        SettingsError: The folder holds a run of another recipe, or something else.
        CheckpointError: It cannot be made or written to.
    """

    def __init__(self, path: Path, recipe: Recipe, lock: FolderLock | None = None) -> None:
        self.path, self._recipe = path, recipe
        self.run, self._code = run_key(recipe), code_key(recipe.model)
        self._tensorboard: Any = None
        self._is_locked = lock is not None
        self._lock: FolderLock | None = None
        self._check()

    def _check(self) -> None:
        path, known = self.path, self.path / "recipe.yaml"
        try:
            if known.exists():
                _check_same(self._recipe, load_recipe(known), path)
            elif path.exists() and not path.is_dir():
                raise SettingsError(f"{path} is a file; a run needs a folder")
            elif path.exists() and not all(map(_may_be_there, path.iterdir())):
                raise SettingsError(f"{path} holds other files than a run's; choose another folder")
        except (OSError, ValueError) as error:
            if isinstance(error, SettingsError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"folder {path} cannot be used: {reason}") from error

    def begin(
        self,
        artifacts: Mapping[str, str],
        wait: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Lock the folder, if it is not, and write the recipe and what the task keeps.

        Leftovers of a crash are removed.

        Args:
            artifacts: Texts of the task, by names of files.
            wait: Whether to wait while another process works in the folder.
            say: Is told if that is so, or if folders cannot be locked here.

        Raises:
            SettingsError: Another process has begun another run in the folder.
            CheckpointError: Another process works in it, or it cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"folder {self.path} cannot be made: {error}") from error
        if not self._is_locked:
            self._lock = FolderLock(self.path)
            self._lock.take(wait, say)
        self._check()  # once more: who had it locked may have begun a run
        try:
            for leftover in self.path.glob(f"*{UNFINISHED}"):
                leftover.unlink()
        except OSError as error:
            raise CheckpointError(f"folder {self.path} cannot be made: {error}") from error
        # first what tells that this is the folder of a run: a crash may come at any moment
        write_text(self.path / "recipe.yaml", dump_recipe(self._recipe))
        for name, text in artifacts.items():
            write_text(self.path / name, text)

    @property
    def checkpoint(self) -> Path:
        """The file of the last checkpoint, whether there is one or not."""
        return self.path / "checkpoint.safetensors"

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, None if there is none.

        Raises:
            CheckpointError: It cannot be read, or is of another run.
        """
        if not self.checkpoint.exists():
            return None
        state = load_tree(self.checkpoint, self.run)
        warn_of_other_code(self.checkpoint, code_of_file(self.checkpoint), self._recipe.model)
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, and the rows up to it.

        Raises:
            CheckpointError: It cannot be written; the one from before is kept.
        """
        save_tree(self.checkpoint, state, self.run, self._code)
        self.write_rows(state["history"])

    def write_rows(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write all rows anew, so that they are those of the checkpoint."""
        write_text(self.path / ROWS, rows_text(history))
        columns = list(dict.fromkeys(key for row in history for key in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writerow({name: spreadsheet_cell(name) for name in columns})
        for row in history:
            writer.writerow({name: spreadsheet_cell(value) for name, value in row.items()})
        write_text(self.path / "metrics.csv", table.getvalue())

    def write_weights(self, name: str, weights: Mapping[str, Any]) -> None:
        """Write weights as NAME.safetensors."""
        save_tree(self.path / f"{name}.safetensors", weights, self.run, self._code, name)

    def write_summary(
        self, summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write how the run ended: from then on it is finished."""
        write_text(self.path / SUMMARY, summary_text(summary, self.run, history))

    def to_tensorboard(self, row: Mapping[str, Any]) -> None:
        """Add a row to TensorBoard's files."""
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            # rows after the checkpoint that a run goes on from are those of a run that died
            folder, first = str(self.path / "tensorboard"), row["epoch"]
            self._tensorboard = SummaryWriter(folder, purge_step=first)
        for name, value in row.items():
            if isinstance(value, int | float):
                self._tensorboard.add_scalar(name, value, row["epoch"])
        self._tensorboard.flush()

    def close(self) -> None:
        """Close TensorBoard's files, and let others work in the folder."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._lock is not None:
            self._lock.release()


def _may_be_there(path: Path) -> bool:
    """Whether a file may lie in the folder of a run that died before it wrote its recipe."""
    return path.name in (LOCK, ATTEMPT) or path.match(f"*{UNFINISHED}")


def _check_same(recipe: Recipe, known: Recipe, path: Path) -> None:
    """Refuse to go on with a recipe that makes another run."""
    apart = [
        one
        for one in differences(known, recipe)
        if not one.startswith(_MAY_CHANGE) or one.startswith(_MAY_NOT)
    ]
    if apart:
        listed = "\n  ".join(apart)
        raise SettingsError(
            f"{path} holds a run of another recipe (there, and here):\n  {listed}\n"
            "choose another folder, or remove that one"
        )
