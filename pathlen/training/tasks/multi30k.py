"""Multi30k: 29,000 captions of pictures in English, and their translations.

Source: Desmond Elliott, Stella Frank, Khalil Sima'an, Lucia Specia, "Multi30K: Multilingual
English-German Image Descriptions", 2016, arXiv:1605.00459; https://github.com/multi30k/dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from pathlen.errors import SettingsError
from pathlen.training.task import Task
from pathlen.training.tasks.places import find_place, missing_files
from pathlen.training.tasks.text_files import PairSettings, pairs_task, read_pairs

Language = Literal["en", "de", "fr", "cs"]

TEST = "test_2016_flickr"
"""The thousand pairs that papers report BLEU on."""


def multi30k(
    *,
    folder: str,
    source: Language = "en",
    target: Language = "de",
    held_out: str = TEST,
    **settings: Unpack[PairSettings],
) -> Task:
    """Make the task of translating captions.

    Args:
        folder: Holds train.LANGUAGE and the files held out, a caption a line, or multi30k with
            them.
        source: Language to translate from.
        target: Language to translate to.
        held_out: What the files held out are called: test_2016_flickr, val, test_2017_flickr, ...
        settings: See :class:`PairSettings`.

    Raises:
        DataError: Files are missing or are not what they should be.
        SettingsError: A library is not installed or a value is out of range.
    """
    if source == target:
        raise SettingsError(f"multi30k: source and target are both {source!r}")
    needed = [f"{part}.{end}" for part in ("train", held_out) for end in (source, target)]
    place = find_place("multi30k", Path(folder), ("multi30k",), missing_files(needed))
    train, test = (
        read_pairs(place / f"{part}.{source}", place / f"{part}.{target}")
        for part in ("train", held_out)
    )
    return pairs_task("multi30k", train, test, settings)
