"""Which modules import which, also inside functions: no circles, and what may not look upwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

import pathlen

ROOT = Path(pathlen.__file__).parent


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything inside that runs, which what is imported for type checkers alone does not."""
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not is_for_types:
            yield child
            yield from run_nodes(child)


def imported(path: Path) -> set[str]:
    found = set()
    for node in run_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                found.add(inside if inside in MODULES else str(node.module))
    return found & MODULES.keys()


@pytest.fixture(scope="module")
def arrows() -> networkx.DiGraph:
    graph = networkx.DiGraph()
    graph.add_nodes_from(MODULES)
    graph.add_edges_from(
        (name, other) for name, path in MODULES.items() for other in imported(path)
    )
    return graph


def test_the_imports_are_seen(arrows):
    assert arrows.has_edge("pathlen.api", "pathlen.lowering")  # inside a function
    assert not arrows.has_edge("pathlen.graph.convert", "pathlen.graph.path_graph")  # for types
    assert arrows.number_of_edges() > 1000


def test_no_module_imports_itself_in_a_circle(arrows):
    circles = [part for part in networkx.strongly_connected_components(arrows) if len(part) > 1]
    assert circles == []


@pytest.mark.parametrize(
    ("folder", "others"),
    [
        ("graph", {"errors", "json_text", "printable", "whole_files", "optional", "lazy"}),
        ("show", {"errors", "graph", "printable", "whole_files", "optional"}),
        ("backends", {"errors", "graph", "collection", "printable", "optional"}),
    ],
)
def test_a_folder_imports_nothing_above_it(arrows, folder, others):
    inside = [name for name in MODULES if name.split(".")[1:2] == [folder]]
    assert len(inside) > 5
    read = {other.split(".")[1] for name in inside for other in arrows.successors(name)}
    assert read - {folder} <= others
