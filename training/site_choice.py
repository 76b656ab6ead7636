"""Which activations of a model get slopes: by the paths of modules, or patterns of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from pathlen.errors import LinearizationError, PathlenError
from pathlen.training.call_sites import CallSite, Unplaced


class Choice:
    """The parts of a model that are chosen.

    Args:
        only: Paths or patterns of the modules to choose, all by default.
        exclude: Of modules among these to leave out.

    Raises:
        PathlenError: They are no paths.
    """

    def __init__(
        self, only: str | Sequence[str] | None, exclude: str | Sequence[str] | None
    ) -> None:
        self._only = None if only is None else _patterns("only", only)
        self._exclude = _patterns("exclude", exclude or ())

    def check(self, model: nn.Module, sites: Sequence[CallSite], left: Sequence[Unplaced]) -> None:
        """Find out whether each pattern means something.

        Raises:
            LinearizationError: One matches no activation, or nothing is chosen.
        """
        every: list[CallSite | Unplaced] = [*sites, *left]
        parts = [_parts(one) for one in every]
        for setting, patterns in (("only", self._only or ()), ("exclude", self._exclude)):
            for pattern in patterns:
                if not any(_matches(pattern, part) for part in parts):
                    raise LinearizationError(_strange(setting, pattern, model, parts))
        if not any(self.takes(one) for one in every):
            raise LinearizationError(
                f"only={self._only} and exclude={self._exclude} leave no activation: all that are"
                " chosen are left out again"
            )

    def takes(self, one: CallSite | Unplaced) -> bool:
        """Whether an activation is chosen."""
        part = _parts(one)
        return (
            self._only is None or any(_matches(pattern, part) for pattern in self._only)
        ) and not any(_matches(pattern, part) for pattern in self._exclude)


def _patterns(setting: str, given: str | Sequence[str]) -> tuple[str, ...]:
    listed = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not all(isinstance(pattern, str) for pattern in listed):
        raise PathlenError(
            f"{setting}={given!r}; give paths of modules, or patterns such as 'layer*.relu'"
        )
    if setting == "only" and not listed:
        raise PathlenError("only=() chooses nothing; leave it out to choose every activation")
    return listed


def _parts(one: CallSite | Unplaced) -> frozenset[str]:
    """Paths of the modules that an activation is in: the one that it is, and all that call it."""
    if isinstance(one, Unplaced):
        return frozenset(_upward(one.path))
    found = {*_upward(one.owner)}
    if one.module is not None:
        found |= {*_upward(one.module.frame[0])}
    return frozenset(found)


def _upward(path: str) -> Iterator[str]:
    """A path, and those of the modules around it; the model's own is that of its forward only."""
    names = path.split(".")
    for end in range(len(names), 0, -1):
        yield ".".join(names[:end])


def _matches(pattern: str, part: Collection[str]) -> bool:
    return any(fnmatchcase(path, pattern) for path in part)


def _strange(setting: str, pattern: str, model: nn.Module, parts: Sequence[frozenset[str]]) -> str:
    """What to say of a pattern that matches no activation."""
    known = sorted(set().union(*parts) - {""})
    near = difflib.get_close_matches(pattern, known, n=4, cutoff=0.4) or known[:4]
    modules = [path for path, _ in model.named_modules() if fnmatchcase(path, pattern)]
    what = f"{setting}={pattern!r} matches no module of {type(model).__name__}"
    if modules:
        what = (
            f"{setting}={pattern!r} matches module {modules[0]!r}, in which no activation lies on"
            " a path from input to output"
        )
    if not near:
        return (
            f"{what}; all activations are called as functions by the model itself: its path is ''"
        )
    return f"{what}; there are activations in {', '.join(map(repr, near))}"
