"""Where accuracy begins to fall: a line with a band over the axis of depths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pathlen.errors import DataError
from pathlen.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Knee = tuple[float, float, float]
"""A depth, and the two ends of its confidence interval."""

_SIZE = 7.0


def knees_of(
    knee: Knee | Mapping[str, Knee] | None, names: Sequence[str]
) -> list[tuple[str | None, Knee]]:
    """What the caller gives as `knee`, checked: names of series, None for all, and triples.

    Args:
        knee: A triple, a mapping from series to triples, or None.
        names: Of the series that are drawn.

    Raises:
        DataError: There is no such series, or something is no triple of finite numbers in order.
    """
    if knee is None:
        return []
    if not isinstance(knee, Mapping):
        return [(None, _checked(knee, "the knee"))]
    for name in knee:
        if name not in names:
            known = ", ".join(map(repr, names))
            raise DataError(f"knee: there is no series {name!r}; use one of {known}")
    return [(name, _checked(knee[name], f"the knee of {name!r}")) for name in names if name in knee]


def _checked(knee: Any, what: str) -> Knee:
    """Three finite numbers; the place itself may lie outside, as of some bootstrap intervals."""
    try:
        place, low, high = map(float, knee)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what} should be three numbers (place, low, high), not {knee!r}"
        ) from error
    if not all(map(math.isfinite, (place, low, high))):
        raise DataError(f"{what} must be finite: {knee!r}; leave it out if there is none")
    if low > high:
        raise DataError(f"{what}: low is {low:g} and high is {high:g}; give (place, low, high)")
    return place, low, high


def draw_knees(ax: Axes, knees: Sequence[tuple[Knee, Any]]) -> None:
    """Draw each knee as a line in a pale band, with its number at the bottom.

    At the bottom, because curves of accuracy are far above it where they are not left of the knee.

    Args:
        ax: The axes, with all else drawn.
        knees: Each with a colour, or None for that of letters.
    """
    colored = [(knee, color or style.foreground(ax)) for knee, color in knees]
    for (place, low, high), color in colored:
        # On lines, markers and bars, which are drawn later, nothing lies.
        ax.axvspan(low, high, color=color, alpha=0.12, linewidth=0, zorder=0.5)
        ax.axvline(place, color=color, linewidth=0.8, zorder=0.6)
    bottom = ax.get_ylim()[0]
    for number, ((place, _, _), color) in enumerate(colored):
        text = f"knee {_short(place)}"
        pixels = ax.transData.transform((place, bottom))
        left = float(ax.transAxes.inverted().transform(pixels)[0])
        fits = left + style.text_width(ax, text, _SIZE) < 1
        ax.annotate(
            text,
            (place, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(3 if fits else -3, number * 1.2 * _SIZE),
            textcoords="offset points",
            fontsize=_SIZE,
            color=color,
            ha="left" if fits else "right",
            va="bottom",
            # The line of the next knee may pass there.
            bbox={"facecolor": ax.get_facecolor(), "alpha": 0.8, "linewidth": 0, "pad": 0.5},
        )


def _short(place: float) -> str:
    """Two digits that count, and all before the point."""
    return f"{place:.2g}" if abs(place) < 10 else f"{place:,.1f}"
