"""The folder of a run.

recipe.yaml             the recipe with all of its values
checkpoint.safetensors  everything that the rest of the run depends on
metrics.jsonl, .csv     one row an epoch
tensorboard/            the same for TensorBoard, if asked for
dense.safetensors       weights when linearization began
model.safetensors       weights at the end
summary.json            how it ended
and what the task keeps beside the weights, such as tokenizer.json
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathlen.errors import CheckpointError, SettingsError
from pathlen.training.files import load_tree, save_tree, write_text
from pathlen.training.recipe import Recipe
from pathlen.training.recipe_file import differences, dump_recipe, load_recipe
from pathlen.whole_files import UNFINISHED

_MAY_CHANGE = ("machine.", "checkpoint_steps", "tensorboard")
_MAY_NOT = ("machine.precision", "machine.channels_last", "machine.compile")


class RunFolder:
    """Where a run keeps what it makes. Only the first process of several writes.

    Args:
        path: The folder; it is made if it is not there.
        recipe: Of the run.

    Raises:
        SettingsError: The folder holds a run of another recipe, or something else.
        CheckpointError: It cannot be made or written to.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self._tensorboard: Any = None
        known = path / "recipe.yaml"
        if known.exists():
            _check_same(recipe, load_recipe(known), path)
        elif path.exists() and not path.is_dir():
            raise SettingsError(f"{path} is a file; a run needs a folder")
        elif path.exists() and any(not one.match(f"*{UNFINISHED}") for one in path.iterdir()):
            raise SettingsError(f"{path} holds other files than a run's; choose another folder")

    def begin(self, recipe: Recipe, artifacts: Mapping[str, str]) -> None:
        """Write the recipe and what the task keeps; leftovers of a crash are removed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for leftover in self.path.glob(f"*{UNFINISHED}"):
                leftover.unlink()
        except OSError as error:
            raise CheckpointError(f"folder {self.path} cannot be made: {error}") from error
        # first what tells that this is the folder of a run: a crash may come at any moment
        write_text(self.path / "recipe.yaml", dump_recipe(recipe))
        for name, text in artifacts.items():
            write_text(self.path / name, text)

    @property
    def summary(self) -> dict[str, Any] | None:
        """How the run ended, None if it did not yet."""
        path = self.path / "summary.json"
        if not path.exists():
            return None
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return summary

    @property
    def checkpoint(self) -> Path:
        """The file of the last checkpoint, whether there is one or not."""
        return self.path / "checkpoint.safetensors"

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, None if there is none.

        Raises:
            CheckpointError: It cannot be read.
        """
        return load_tree(self.checkpoint) if self.checkpoint.exists() else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, and the rows up to it.

        Raises:
            CheckpointError: It cannot be written; the one from before is kept.
        """
        save_tree(self.checkpoint, state)
        self.write_rows(state["history"])

    def write_rows(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write all rows anew, so that they are those of the checkpoint."""
        lines = "".join(json.dumps(row) + "\n" for row in history)
        write_text(self.path / "metrics.jsonl", lines)
        columns = list(dict.fromkeys(key for row in history for key in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.path / "metrics.csv", table.getvalue())

    def write_weights(self, name: str, weights: Mapping[str, Any]) -> None:
        """Write weights as NAME.safetensors."""
        save_tree(self.path / f"{name}.safetensors", weights)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write how the run ended: from then on it is finished."""
        write_text(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

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
        """Close TensorBoard's files."""
        if self._tensorboard is not None:
            self._tensorboard.close()


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
