"""Where the files of a data set lie, and what to do where they are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pathlen.errors import DataError


def find_place(
    name: str,
    folder: Path,
    within: Sequence[str],
    missing: Callable[[Path], list[str]],
    hint: str = "",
) -> Path:
    """Find the folder that holds all files of a data set.

    Args:
        name: The task, which `pathlen data get` knows the data set by.
        folder: What the user named: the folder itself, or one that it lies in.
        within: Names that the folder may have there, the one that is downloaded first.
        missing: Gives the files that a folder lacks.
        hint: More to say where files are missing.

    Raises:
        DataError: Files are missing.
    """
    places = [*(folder / inner for inner in within), folder]
    for place in places:
        if place.is_dir() and not missing(place):
            return place
    itself = folder.name in within
    place = next(
        (place for place in places[:-1] if place.is_dir()), folder if itself else places[0]
    )
    root = folder.parent if itself else folder
    raise DataError(
        f"{name}: no {', '.join(missing(place))} in {str(place)!r}; "
        f"`pathlen data get {name} --folder {root}` downloads the data set" + (hint and f"; {hint}")
    )


def missing_files(names: Sequence[str]) -> Callable[[Path], list[str]]:
    """Give the function that says which of some files a folder lacks."""
    return lambda place: [name for name in names if not (place / name).is_file()]
