"""Labels for an axis of layers that are legible at print size, for 5 layers as for 500.

Layers stand at 1, 2, ... n. Where there is room for all of their names, these are the labels; else
the names of the modules that they lie in, one for each run of layers; else their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pathlen.figures.style import CHARACTER, name_text, width_in_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DEEPEST = 4
# Labels of modules are worth more than numbers if this part of the layers lies under one, and not
# most of them under the same.
_COVERED, _SAME = 0.75, 0.8


@dataclass(frozen=True, slots=True)
class _Label:
    """A text below the layers from first to last."""

    text: str
    first: int
    last: int

    @property
    def center(self) -> float:
        return (self.first + self.last) / 2


def label_layers(ax: Axes, names: Sequence[str]) -> None:
    """Set limits, ticks, tick labels and label of the horizontal axis.

    Args:
        ax: Whose horizontal axis has the layers at 1, 2, ...
        names: Of the layers, in order.
    """
    from matplotlib.ticker import MaxNLocator

    names = [name_text(name) for name in names]
    ax.set_xlim(0.4, len(names) + 0.6)
    slot, size = _slot_and_size(ax, len(names))
    shared = _shared_module(names)
    ax.set_xlabel(f"layer of {shared}" if shared and len(shared) <= 24 else "layer")
    short = [name.removeprefix(f"{shared}.") for name in names]
    labels = _labels(short, slot / (size * CHARACTER))
    if labels is None:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=7))
        ax.set_xlabel("layer")
        return
    ax.set_xticks([label.center for label in labels], [label.text for label in labels])
    if len(labels) < len(names):
        ends = {label.first - 0.5 for label in labels} | {label.last + 0.5 for label in labels}
        ax.set_xticks(sorted(ends), minor=True)
        ax.tick_params(axis="x", which="major", length=0, pad=4)
        ax.tick_params(axis="x", which="minor", length=4, width=0.6)


def _slot_and_size(ax: Axes, count: int) -> tuple[float, float]:
    """How wide the place of a layer is, and how large the font of its label, in points."""
    (label,) = ax.xaxis.get_ticklabels()[:1] or [ax.xaxis.label]
    return width_in_points(ax) / (count + 0.2), float(label.get_fontsize())


def _shared_module(names: Sequence[str]) -> str:
    """The path of the innermost module that all layers lie in."""
    paths = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) if len(names) > 1 else ""


def _labels(names: Sequence[str], slot: float) -> list[_Label] | None:
    """Labels that fit: the names, those of modules, or None for numbers; a slot in characters."""
    if max(map(len, names)) + 1 <= slot:
        return [_Label(name, place, place) for place, name in enumerate(names, 1)]
    for depth in range(_DEEPEST, 0, -1):
        runs = _runs(names, depth)
        placed = _placed(runs, slot)
        covered = sum(label.last - label.first + 1 for label in placed)
        if len(placed) > 1 and covered >= _COVERED * len(names):
            return placed
    return None


def _runs(names: Sequence[str], depth: int) -> list[_Label]:
    """Consecutive layers that lie in the same module, named by its path of at most a depth."""
    found = []
    place = 1
    for module, members in groupby(names, lambda name: _module(name, depth)):
        count = len(list(members))
        found.append(_Label(module, place, place + count - 1))
        place += count
    return found


def _module(name: str, depth: int) -> str:
    """The first parts of a path, without the number of the call."""
    return ".".join(name.partition("#")[0].split(".")[:depth])


def _placed(labels: Sequence[_Label], slot: float) -> list[_Label]:
    """The labels that do not overlap, those of long runs first, in order; a slot in characters."""
    placed: list[_Label] = []
    taken: list[tuple[float, float]] = []
    for label in sorted(labels, key=lambda label: label.first - label.last):
        half = (len(label.text) + 1) / 2 / slot
        left, right = label.center - half, label.center + half
        if all(right <= first or last <= left for first, last in taken):
            placed.append(label)
            taken.append((left, right))
    return sorted(placed, key=lambda label: label.first)
