"""Put the page of a report together and write it, all of it or nothing."""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Mapping
from importlib import resources
from os import PathLike
from string import Template
from typing import TYPE_CHECKING

from pathlen.errors import ReportError
from pathlen.html.data import page_data
from pathlen.show.files import file_target, write_text

if TYPE_CHECKING:
    from pathlen.report.report import Report

SCRIPTS = (
    "tools.js",
    "graph_tree.js",
    "graph_ranks.js",
    "graph_layout.js",
    "graph_draw.js",
    "graph_view.js",
    "graph_events.js",
    "charts.js",
    "table.js",
    "page.js",
)
"""The scripts of the page, in the order that the browser runs them in."""

# Characters that could end the script element that holds the data, or open another in it.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def write_page(
    report: Report, path: str | PathLike[str], title: str | None, memory_limit: int | None
) -> None:
    """See `Report.to_html`."""
    target = file_target(path)
    text = page_text(report, target.stem if title is None else title, memory_limit)
    write_text(target, [text])


def page_text(report: Report, title: str, memory_limit: int | None = None) -> str:
    """The page as text."""
    library = _chart_library()
    return Template(_asset("page.html")).substitute(
        title=html.escape(title),
        style=_asset("style.css"),
        data=script_json(page_data(report, title, memory_limit)),
        plotly=library,
        # Each in a function of its own: what a script declares stays its own.
        script="\n".join(f"(() => {{\n{_asset(name)}}})();" for name in SCRIPTS),
    )


def script_json(data: Mapping[str, object]) -> str:
    """JSON that is harmless within a script element, whatever its strings are.

    Only strings can hold the characters that are escaped, and there an escape means the same as
    the character. All else outside ASCII is escaped as well, lone surrogates among them.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _chart_library() -> str:
    """Plotly's script, compressed, as base64: a third of its size, and unpacked by the browser.

    Raises:
        ReportError: It is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ReportError(
            "the HTML report draws its charts with plotly, which is not installed; "
            "run: pip install 'pathlen[html]'"
        ) from error
    # With the time left out, the same report gives the same file.
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _asset(name: str) -> str:
    """The text of a file that stands beside this one."""
    return resources.files("pathlen.html").joinpath(name).read_text(encoding="utf-8")
