"""What a report and a path graph offer for other programs, in the same words."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, overload

from pathlen.errors import ReportError
from pathlen.whole_files import is_folder, replacing

if TYPE_CHECKING:
    from pathlen.graph.path_graph import PathGraph
    from pathlen.report.layer_graph import LayerGraph
    from pathlen.report.report import Report


class Exports:
    """Methods of `Report` and `PathGraph`. Those of a report tell contributions and shares, too."""

    __slots__ = ()

    def layer_graph(self) -> LayerGraph:
        """The layers and what they feed to each other; see `pathlen.layer_graph`."""
        from pathlen.report.layer_graph import layer_graph

        return layer_graph(cast("Report | PathGraph", self))

    def to_graphml(
        self, path: str | PathLike[str], *, level: Literal["layers", "units"] = "layers"
    ) -> None:
        """Write a GraphML file, which networkx, igraph, Gephi, yEd and Cytoscape read.

        Args:
            path: The file. One that is there is replaced, all of it or nothing.
            level: "layers" for the graph of the layers, hubs left out; "units" for the path graph
                itself: units, hubs and terminals.

        Raises:
            ReportError: There is no such level, or the file cannot be written.
        """
        from pathlen.report.report import Report
        from pathlen.show.graphml import layers_graphml, units_graphml

        if level not in ("layers", "units"):
            raise ReportError(f"no level {level!r}; use 'layers' or 'units'")
        if level == "layers":
            write_text(path, layers_graphml(self.layer_graph()))
        elif isinstance(self, Report):
            write_text(path, units_graphml(self.graph, self))
        else:
            write_text(path, units_graphml(cast("PathGraph", self), None))

    @overload
    def to_dot(self, path: None = None) -> str: ...

    @overload
    def to_dot(self, path: str | PathLike[str]) -> None: ...

    def to_dot(self, path: str | PathLike[str] | None = None) -> str | None:
        """Give the graph of the layers in the language of Graphviz, or write it to a file.

        An activation layer is filled in the proportion of its active and linear units; dashed
        edges are skip connections.

        Raises:
            ReportError: The file cannot be written.
        """
        from pathlen.show.layer_text import dot_text

        return _text_or_file(dot_text(self.layer_graph()), path)

    @overload
    def to_mermaid(self, path: None = None) -> str: ...

    @overload
    def to_mermaid(self, path: str | PathLike[str]) -> None: ...

    def to_mermaid(self, path: str | PathLike[str] | None = None) -> str | None:
        """Give the graph of the layers as a Mermaid flowchart, or write it to a file.

        Dotted edges are skip connections. Programs that draw Mermaid refuse more than 500 edges or
        50,000 characters unless they are set up otherwise (`maxEdges`, `maxTextSize`).

        Raises:
            ReportError: The file cannot be written.
        """
        from pathlen.show.layer_text import mermaid_text

        return _text_or_file(mermaid_text(self.layer_graph()), path)


def write_text(path: str | PathLike[str], pieces: Iterable[str]) -> None:
    """Write a text file, all of it or nothing; halves of surrogate pairs become "?".

    Raises:
        ReportError: It is a folder, or in a folder that is not there, or cannot be written.
    """
    written(path, (piece.encode("utf-8", "replace") for piece in pieces))


def written(path: str | PathLike[str], pieces: Iterable[bytes]) -> None:
    """Write a file, all of it or nothing.

    Raises:
        ReportError: As for `write_text`.
    """
    target = file_target(path)
    try:
        with replacing(target) as file:
            file.writelines(pieces)
    except OSError as error:
        raise ReportError(f"{target} cannot be written: {error.strerror or error}") from error


def file_target(path: str | PathLike[str]) -> Path:
    """The path of a file that can be written there.

    Raises:
        ReportError: It is a folder, or in a folder that is not there.
    """
    target = Path(path)
    if is_folder(target):
        raise ReportError(f"{target} is a folder; give the name of a file")
    if not is_folder(target.parent):
        raise ReportError(
            f"{target} cannot be written because there is no folder {target.parent}; make it first"
        )
    return target


def _text_or_file(text: str, path: str | PathLike[str] | None) -> str | None:
    """The text, or None once it is in a file."""
    if path is None:
        return text
    write_text(path, [text])
    return None
