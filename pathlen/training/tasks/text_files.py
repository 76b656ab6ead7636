"""Files of text whose lines are translations of each other, and the settings of such tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy

from pathlen.errors import DataError, SettingsError
from pathlen.training.task import Task
from pathlen.training.tasks.subsets import stratified_subset
from pathlen.training.tasks.translation import Lines, TextSettings, translation_task


class PairSettings(TypedDict, total=False):
    """Settings of every task that translates lines of files.

    Attributes:
        train_size: How many pairs to train on; all by default. A smaller number is a part of a
            larger one.
        subset_seed: Decides which.
        vocabulary_size: Largest number of subwords, at least 259; 8,000 by default.
        vocabulary: A file with the vocabulary of another run, to use instead.
        max_tokens: Longest source and target, in subwords; 128 by default. Longer pairs are left
            out on both sides, and a note says how many.
        beam: Width of the beam search, 4 by default; 1 is greedy.
        length_penalty: Of the beam search; 0.6 by default.
        bleu_tokenizer: How sacrebleu tells words apart: "13a" (the default), "intl", "char", ...
    """

    train_size: int | None
    subset_seed: int
    vocabulary_size: int
    vocabulary: str | None
    max_tokens: int
    beam: int
    length_penalty: float
    bleu_tokenizer: str


def pairs_task(
    name: str, train: Lines, test: Lines, settings: PairSettings, notes: tuple[str, ...] = ()
) -> Task:
    """Make the task of translating lines of files.

    Args:
        name: What it is called.
        train: Pairs to train on; those with an empty side are left out.
        test: Pairs held out.
        settings: See :class:`PairSettings`.
        notes: What the user should know of the data.

    Raises:
        SettingsError: A value is out of range, or a library is not installed.
        DataError: There are no pairs.
    """
    train = [pair for pair in train if all(pair)]
    size = settings.get("train_size")
    if size is not None:
        if not 1 <= size <= len(train):
            raise SettingsError(f"{name}: train_size must be from 1 to {len(train)}, not {size}")
        one_class = numpy.zeros(len(train), dtype=numpy.int64)
        chosen = stratified_subset(one_class, size, settings.get("subset_seed", 0))
        train = [train[place] for place in chosen.tolist()]
    text = TextSettings(
        settings.get("vocabulary_size", 8_000),
        settings.get("vocabulary"),
        settings.get("max_tokens", 128),
        settings.get("beam", 4),
        settings.get("length_penalty", 0.6),
        bleu_tokenizer=settings.get("bleu_tokenizer", "13a"),
    )
    return translation_task(name, train, test, text, notes)


def read_pairs(source: Path, target: Path) -> list[tuple[str, str]]:
    """Read two files line by line.

    Raises:
        DataError: They have not as many lines, or are not UTF-8.
    """
    left, right = read_lines(source), read_lines(target)
    if len(left) != len(right):
        raise DataError(
            f"{str(source)!r} has {len(left)} lines and {str(target)!r} has {len(right)}: line by "
            "line they must be translations of each other"
        )
    return list(zip(left, right, strict=True))


def read_lines(path: Path) -> list[str]:
    """Read the lines of a file, without space around them.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8: {error}") from error
    # Not splitlines(), which also parts lines at rarer signs such as U+2028.
    return [line.strip() for line in text.removesuffix("\n").split("\n")]
