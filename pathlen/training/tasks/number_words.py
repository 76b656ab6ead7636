"""English number words to German ones: forty-two to zweiundvierzig.

German says the units before the tens, so that the order of words matters. Written as German is,
a number below a million is a single word; to make sentences of them, the parts it is made of are
written apart: zwei und vierzig.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator

from pathlen.errors import SettingsError
from pathlen.training.libraries import library
from pathlen.training.task import Task
from pathlen.training.tasks.translation import TextSettings, translation_task

PART = re.compile(
    "zwanzig|dreißig|vierzig|fünfzig|sechzig|siebzig|achtzig|neunzig|"
    "zehn|elf|zwölf|dreizehn|vierzehn|fünfzehn|sechzehn|siebzehn|achtzehn|neunzehn|"
    "null|eins|eine|ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun|hundert|tausend|und"
)
HELD_OUT = 8
"""One number in so many is held out."""


def number_words(
    *,
    first: int = 0,
    last: int = 999_999,
    train_size: int = 20_000,
    test_size: int = 1_000,
    compounds: bool = False,
    split_seed: int = 0,
    vocabulary_size: int = 384,
    vocabulary: str | None = None,
    max_tokens: int = 64,
    beam: int = 1,
    length_penalty: float = 0.6,
) -> Task:
    """Make the task of translating number words from English to German.

    Whether a number is held out depends on the number and `split_seed` alone, so that no number
    held out is ever trained on, whatever the sizes.

    Args:
        first: Smallest number, from 0.
        last: Largest number.
        train_size: How many numbers to train on.
        test_size: How many others to test on.
        compounds: Whether German words are written together, as they are in German. BLEU compares
            characters then, since a whole number is one word.
        split_seed: Decides which numbers are held out and which of the range are drawn.
        vocabulary_size: Largest number of subwords, at least 259.
        vocabulary: A file with the vocabulary of another run, to use instead.
        max_tokens: Longest source and target, in subwords.
        beam: Width of the beam search; 1 is greedy.
        length_penalty: Of the beam search.

    Raises:
        SettingsError: The range is empty or has too few numbers, or a library is not installed.
    """
    if not 0 <= first <= last:
        raise SettingsError(f"number_words needs 0 <= first <= last, not {first} and {last}")
    train, test = split_numbers(first, last, train_size, test_size, split_seed)
    settings = TextSettings(
        vocabulary_size,
        vocabulary,
        max_tokens,
        beam,
        length_penalty,
        bleu_tokenizer="char" if compounds else "13a",
    )
    lines = [[in_words(number, compounds) for number in numbers] for numbers in (train, test)]
    return translation_task("number_words", lines[0], lines[1], settings)


def in_words(number: int, compounds: bool = False) -> tuple[str, str]:
    """Write a number out, in English and in German."""
    num2words = library("num2words", "num2words").num2words
    english, german = num2words(number, lang="en"), num2words(number, lang="de")
    return english, german if compounds else apart(german)


def apart(german: str) -> str:
    """Write the parts of German number words apart; words made of other parts stay whole."""
    words: list[str] = []
    for word in german.split():
        parts = PART.findall(word)
        words += parts if "".join(parts) == word else [word]
    return " ".join(words)


def is_held_out(number: int, seed: int) -> bool:
    """Whether a number is for testing: a function of the two alone."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT == 0


def split_numbers(
    first: int, last: int, train_size: int, test_size: int, seed: int
) -> tuple[list[int], list[int]]:
    """Draw numbers to train and to test on, without a number twice.

    Args:
        first: Smallest number.
        last: Largest number.
        train_size: How many to train on.
        test_size: How many to test on.
        seed: Decides which.

    Raises:
        SettingsError: There are not as many.
    """
    if train_size < 1 or test_size < 1:
        raise SettingsError(f"train_size and test_size must be positive: {train_size}, {test_size}")
    train: list[int] = []
    test: list[int] = []
    for number in _in_random_order(first, last, seed):
        side, size = (test, test_size) if is_held_out(number, seed) else (train, train_size)
        if len(side) < size:
            side.append(number)
        if len(train) == train_size and len(test) == test_size:
            return train, test
    raise SettingsError(
        f"between {first} and {last} there are {len(train)} numbers to train on and {len(test)} to "
        f"test on, fewer than train_size {train_size} and test_size {test_size}"
    )


def _in_random_order(first: int, last: int, seed: int) -> Iterator[int]:
    """Give all numbers of a range once; of a long one, as many as are asked for."""
    draw = random.Random(seed)
    count = last - first + 1
    if count <= 1 << 21:
        yield from draw.sample(range(first, last + 1), count)
        return
    seen: set[int] = set()
    while len(seen) < count:
        number = draw.randrange(first, last + 1)
        if number not in seen:
            seen.add(number)
            yield number
