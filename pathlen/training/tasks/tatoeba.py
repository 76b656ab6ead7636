"""Tatoeba: everyday sentences in English and German, translated by volunteers.

A sentence often has several translations, and often differs from another in a mark alone. So what
is held out is a sentence with all of its translations, and with all that have the same words.

Source: https://tatoeba.org, CC BY 2.0 FR; the file deu.txt of https://www.manythings.org/anki/.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal, Unpack

from pathlen.errors import DataError, SettingsError
from pathlen.training.task import Task
from pathlen.training.tasks.places import find_place, missing_files
from pathlen.training.tasks.text_files import PairSettings, pairs_task, read_lines, read_pairs

TABLE = "deu.txt"
"""A line for each pair: the English sentence, the German one, and where they are from, by tabs."""

LINE_FILES = ("train.en", "train.de", "test.en", "test.de")
"""The files of a folder that is split already."""

TEST_SHARE = 0.02

WORD = re.compile(r"\w+")

Pairs = list[tuple[str, str]]


def tatoeba(
    *,
    folder: str,
    source: Literal["en", "de"] = "en",
    test_share: float | None = None,
    split_seed: int = 0,
    **settings: Unpack[PairSettings],
) -> Task:
    """Make the task of translating everyday sentences between English and German.

    Args:
        folder: Holds deu.txt, or else train.en, train.de, test.en and test.de with a sentence a
            line; or tatoeba with them.
        source: Language to translate from.
        test_share: Share of the different source sentences of deu.txt that is held out, 0.02 by
            default.
        split_seed: Decides which.
        settings: See :class:`PairSettings`.

    Raises:
        DataError: Files are missing or are not what they should be.
        SettingsError: A library is not installed or a value is out of range.
    """
    place = find_place("tatoeba", Path(folder), ("tatoeba",), _missing)
    if (place / TABLE).is_file():
        share = TEST_SHARE if test_share is None else test_share
        if not 0 < share < 1:
            raise SettingsError(f"tatoeba: test_share must be between 0 and 1, not {share}")
        every = _turned(read_table(place / TABLE), source)
        train, test = split(every, share, split_seed)
        return pairs_task("tatoeba", train, test, settings)
    if test_share is not None:
        raise SettingsError(f"tatoeba: {str(place)!r} is split already; leave test_share out")
    given, test = (
        _turned(read_pairs(place / f"{part}.en", place / f"{part}.de"), source)
        for part in ("train", "test")
    )
    held_out = {words(sentence) for sentence, _ in test}
    train = [pair for pair in given if words(pair[0]) not in held_out]
    note = (
        f"{len(given) - len(train)} of {len(given)} pairs to train on have the words of a source "
        "sentence held out; they were left out"
    )
    return pairs_task("tatoeba", train, test, settings, (note,) if len(train) < len(given) else ())


def _missing(place: Path) -> list[str]:
    missing = missing_files(LINE_FILES)(place)
    return (
        [] if (place / TABLE).is_file() or not missing else [f"{TABLE} (or {', '.join(missing)})"]
    )


def _turned(pairs: Pairs, source: str) -> Pairs:
    """English and German sentences, in the direction to translate."""
    return pairs if source == "en" else [(german, english) for english, german in pairs]


def read_table(path: Path) -> Pairs:
    """Read the English and German sentences of a table.

    Raises:
        DataError: A line has no tab, or the file is not UTF-8.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        english, tab, rest = line.partition("\t")
        if not tab:
            raise DataError(
                f"line {number} of {str(path)!r} has no tab; an English sentence, a tab and a "
                f"German one are expected, not {line[:80]!r}"
            )
        pairs.append((english.strip(), rest.partition("\t")[0].strip()))
    return pairs


def words(sentence: str) -> str:
    """A sentence without marks and capitals; one without words as it is."""
    return " ".join(WORD.findall(sentence.casefold())) or sentence


def is_held_out(sentence: str, share: float, seed: int) -> bool:
    """Whether a source sentence is for testing: a function of its words and the seed alone."""
    digest = hashlib.blake2b(f"{seed}:{words(sentence)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def split(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Part pairs into those to train on and those held out.

    Of the translations of a sentence held out the first is kept, to be translated once.

    Args:
        pairs: Sources and targets.
        share: Of the different source sentences that is held out, on average.
        seed: Decides which.
    """
    train: Pairs = []
    test: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        if is_held_out(pair[0], share, seed):
            test.setdefault(words(pair[0]), pair)
        else:
            train.append(pair)
    return train, list(test.values())
