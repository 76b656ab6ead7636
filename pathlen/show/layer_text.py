"""The graph of layers as text that other programs draw: DOT for Graphviz, and Mermaid.

Nodes are numbered in the text, so that a name can hold any character: it only stands in labels,
with what has a meaning there escaped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pathlen.graph.parts import Kind

if TYPE_CHECKING:
    from pathlen.report.layer_graph import LayerEdge, LayerGraph, LayerNode

# Pale, so that black text on them can be read.
_ACTIVE, _LINEAR, _PLAIN = "#9ecae1", "#e0e0e0", "#ffffff"

# Ends of lines, and control characters that these languages have no place for.
_BREAKS = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")


def dot_text(graph: LayerGraph) -> str:
    """The graph in the language of Graphviz.

    An activation layer is filled in the proportion of its active and linear units; dashed edges are
    skip connections.
    """
    lines = [
        "digraph pathlen {",
        '  node [shape=box, style=filled, fillcolor="#ffffff", fontname="Helvetica"];',
    ]
    for number, node in enumerate(graph.nodes):
        label = "\\n".join(map(_dot_escaped, _label_lines(node)))
        lines.append(f'  n{number} [label="{label}"{_dot_look(node)}];')
    for edge in graph.edges:
        style = ", style=dashed" if edge.skip else ""
        tooltip = f"{edge.connections} connections"
        lines.append(f'  n{edge.source} -> n{edge.target} [tooltip="{tooltip}"{style}];')
    return "\n".join([*lines, "}"]) + "\n"


def mermaid_text(graph: LayerGraph) -> str:
    """The graph as a Mermaid flowchart; dotted edges are skip connections.

    Mermaid itself refuses texts of more than 50,000 characters and graphs of more than 500 edges
    unless it is set up otherwise (`maxTextSize`, `maxEdges`).
    """
    lines = ["flowchart TD"]
    classes: dict[str, list[str]] = {"active": [], "partly": [], "linear": []}
    for number, node in enumerate(graph.nodes):
        label = "<br/>".join(map(_mermaid_escaped, _label_lines(node)))
        ends = ("[", "]") if node.kind == Kind.UNIT else ("([", "])")
        lines.append(f'    n{number}{ends[0]}"{label}"{ends[1]}')
        if node.activation or node.active:
            state = "linear" if not node.active else "partly" if node.linear else "active"
            classes[state].append(f"n{number}")
    lines += [f"    n{e.source} {_mermaid_arrow(e)} n{e.target}" for e in graph.edges]
    lines.append(f"    classDef active fill:{_ACTIVE},color:#000000")
    lines.append("    classDef partly fill:#cfe1ec,color:#000000")
    lines.append(f"    classDef linear fill:{_LINEAR},color:#000000")
    lines += [f"    class {','.join(nodes)} {name}" for name, nodes in classes.items() if nodes]
    return "\n".join(lines) + "\n"


def _label_lines(node: LayerNode) -> list[str]:
    """What a node says: its name, what it does, and how many of its units are active."""
    units = f"{node.units:,} unit{'s' if node.units != 1 else ''}"
    if node.activation or node.active:
        units = f"{node.active:,} of {units} active"
    dead = f", {node.dead:,} dead" if node.dead else ""
    return [_BREAKS.sub(" ", node.name), _BREAKS.sub(" ", node.operation), units + dead]


def _dot_escaped(text: str) -> str:
    """A text as a part of a quoted label, where a backslash and an ampersand begin escapes."""
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _dot_look(node: LayerNode) -> str:
    """Attributes of a node besides its label."""
    if node.kind != Kind.UNIT:
        return ", shape=oval"
    if not (node.activation or node.active):
        return ""
    if node.active and node.linear:
        part = node.active / node.units
        return f', style=striped, fillcolor="{_ACTIVE};{part:.4f}:{_LINEAR}"'
    return f', fillcolor="{_ACTIVE if node.active else _LINEAR}"'


def _mermaid_escaped(text: str) -> str:
    """A text as a part of a quoted label, where # begins a character and others are markup."""
    text = text.replace("#", "#35;")
    for character in '"&<>`\\*_':
        text = text.replace(character, f"#{ord(character)};")
    return text


def _mermaid_arrow(edge: LayerEdge) -> str:
    """The arrow of an edge."""
    return "-.->" if edge.skip else "-->"
