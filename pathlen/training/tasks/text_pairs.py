"""Any two languages: files of text whose lines belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from pathlen.errors import DataError
from pathlen.training.task import Task
from pathlen.training.tasks.text_files import PairSettings, pairs_task, read_pairs


def text_pairs(
    *,
    train_source: str,
    train_target: str,
    test_source: str,
    test_target: str,
    **settings: Unpack[PairSettings],
) -> Task:
    """Make the task of translating the lines of one file to those of another.

    Pairs with an empty line are left out of those to train on.

    Args:
        train_source: File of lines to train on, UTF-8.
        train_target: Their translations, line by line.
        test_source: File of lines held out.
        test_target: Their translations.
        settings: See :class:`PairSettings`.

    Raises:
        DataError: A file is missing, is not UTF-8, or two files have not as many lines.
        SettingsError: A library is not installed or a value is out of range.
    """
    files = {
        "train_source": train_source,
        "train_target": train_target,
        "test_source": test_source,
        "test_target": test_target,
    }
    missing = [f"{key} {name!r}" for key, name in files.items() if not Path(name).is_file()]
    if missing:
        raise DataError(
            f"text_pairs: there is no file {', '.join(missing)}; four text files are expected, the "
            "lines of each target being the translations of the lines of its source"
        )
    train = read_pairs(Path(train_source), Path(train_target))
    test = read_pairs(Path(test_source), Path(test_target))
    return pairs_task("text_pairs", train, test, settings)
