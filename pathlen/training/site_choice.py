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
        model: The model; a module may have several paths in it.
        only: Paths or patterns of the modules to choose, all by default.
        exclude: Of modules among these to leave out.

    Raises:
        PathlenError: They are no paths.
    """

    def __init__(
        self,
        model: nn.Module,
        only: str | Sequence[str] | None,
        exclude: str | Sequence[str] | None,
    ) -> None:
        self._model, self._names = model, _names(model)
        self._only = None if only is None else _patterns("only", only)
        self._exclude = _patterns("exclude", exclude or ())

    def check(self, sites: Sequence[CallSite], left: Sequence[Unplaced]) -> None:
        """Find out whether each pattern means something.

        Raises:
            LinearizationError: One matches no activation, or nothing is chosen.
        """
        every: list[CallSite | Unplaced] = [*sites, *left]
        parts = [self._parts(one) for one in every]
        for setting, patterns in (("only", self._only or ()), ("exclude", self._exclude)):
            for pattern in patterns:
                if not any(_matches(pattern, part) for part in parts):
                    raise LinearizationError(_strange(setting, pattern, self._model, parts))
        if not any(self.takes(one) for one in every):
            raise LinearizationError(
                f"only={self._only} and exclude={self._exclude} leave no activation: all that are"
                " chosen are left out again"
            )

    def takes(self, one: CallSite | Unplaced) -> bool:
        """Whether an activation is chosen."""
        part = self._parts(one)
        return (
            self._only is None or any(_matches(pattern, part) for pattern in self._only)
        ) and not any(_matches(pattern, part) for pattern in self._exclude)

    def _parts(self, one: CallSite | Unplaced) -> frozenset[str]:
        """Paths of the modules that an activation is in: the one that it is, and all that call it.

        Each under all of its names.
        """
        if isinstance(one, Unplaced):
            found = {*_upward(one.path)}
        else:
            found = {*_upward(one.owner)}
            if one.module is not None:
                found |= {*_upward(one.module.frame[0])}
        return frozenset(name for path in found for name in self._names.get(path, [path]))


def _patterns(setting: str, given: str | Sequence[str]) -> tuple[str, ...]:
    listed = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not all(isinstance(pattern, str) for pattern in listed):
        raise PathlenError(
            f"{setting}={given!r}; give paths of modules, or patterns such as 'layer*.relu'"
        )
    if setting == "only" and not listed:
        raise PathlenError("only=() chooses nothing; leave it out to choose every activation")
    return listed


def _names(model: nn.Module) -> dict[str, list[str]]:
    """All paths of each module, by the first of them, which calls are known by."""
    first: dict[nn.Module, str] = {}
    found: dict[str, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        found.setdefault(first.setdefault(module, path), []).append(path)
    return found


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
    every = [path for path, _ in model.named_modules(remove_duplicate=False)]
    modules = [path for path in every if fnmatchcase(path, pattern)]
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
