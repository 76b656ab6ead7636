"""Exports, read back with other libraries and compared with the graph and the report."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import tomllib
import warnings
from pathlib import Path

import igraph
import jsonschema
import networkx
import pydot
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import pathlen
from pathlen import Kind, PathGraph, layer_graph
from pathlen.cli.main import main
from pathlen.errors import ReportError
from pathlen.report.data import SCHEMA_VERSION
from tests.figure_cases import Block, pruned_perceptron
from tests.path_graphs import figure_1

NASTY = [
    "quotes \"x\" and 'y'",
    "brackets [0] {1} (2) <b>bold</b> ]]>",
    "back\\slash at the end\\",
    "entities &amp; #35; #quot; & ;",
    "`marked` *up* _here_ | and -> there --- %% comment",
    "päth/長さ/🙂",
    "layer1.0.relu#2",
]


def nasty_graph() -> PathGraph:
    """A chain with a skip, whose layers have names that mean something elsewhere."""
    count = len(NASTY)
    edges = [(node, node + 1) for node in range(count - 1)] + [(0, 2)]
    return PathGraph.from_edges(edges, activity=[0, *[1] * (count - 2), 0], layers=NASTY)


@pytest.fixture(scope="module")
def network():
    """A report of two residual blocks, a ReLU and a dense layer."""
    model = nn.Sequential(Block(3, 4), nn.ReLU(), Block(3, 5), nn.Linear(3, 2))
    return pathlen.measure(model, torch.zeros(1, 3))


# GraphML


def test_graphml_of_layers_is_the_layer_graph(network, tmp_path):
    layer_graph(network).to_graphml(tmp_path / "layers.graphml")
    read = networkx.read_graphml(tmp_path / "layers.graphml")
    graph = layer_graph(network)
    assert isinstance(read, networkx.DiGraph)
    for number, node in enumerate(graph.nodes):
        assert read.nodes[f"n{number}"] == {
            "name": node.name,
            "operation": node.operation,
            "kind": {Kind.INPUT: "input", Kind.UNIT: "layer", Kind.OUTPUT: "output"}[node.kind],
            "units": node.units,
            "active": node.active,
            "linear": node.linear,
            "dead": node.dead,
            "activation": node.activation,
            "contribution": node.contributions["uniform"],
            "normalized_contribution": node.contributions["normalized"],
        }
    assert {ends: data for *ends, data in read.edges(data=True) for ends in [tuple(ends)]} == {
        (f"n{edge.source}", f"n{edge.target}"): {
            "connections": edge.connections,
            "skip": edge.skip,
            "share": edge.shares["uniform"],
            "normalized_share": edge.shares["normalized"],
        }
        for edge in graph.edges
    }


@pytest.mark.parametrize("make", [figure_1, nasty_graph, lambda: pruned_perceptron().graph])
def test_graphml_of_units_is_the_path_graph(make, tmp_path):
    graph = make()
    pathlen.write_graphml(graph, tmp_path / "units.graphml")
    read = networkx.read_graphml(tmp_path / "units.graphml")
    expected = networkx.relabel_nodes(graph.to_networkx(), lambda node: f"n{node}")
    assert dict(read.nodes(data=True)) == dict(expected.nodes(data=True))
    assert networkx.to_dict_of_dicts(read) == networkx.to_dict_of_dicts(expected)
    pathlen.write_graphml(pathlen.measure(graph), tmp_path / "units.graphml")
    with_shares = networkx.read_graphml(tmp_path / "units.graphml")
    shares = [with_shares.nodes[f"n{node}"]["share"] for node in range(graph.num_nodes)]
    assert shares == list(pathlen.measure(graph).centrality())


def test_graphml_of_a_traced_network_has_hubs(network, tmp_path):
    pathlen.write_graphml(network.graph, tmp_path / "units.graphml")
    read = networkx.read_graphml(tmp_path / "units.graphml")
    kinds = [data["kind"] for _, data in read.nodes(data=True)]
    assert kinds.count("hub") == 5
    assert read.number_of_edges() == network.graph.num_edges


def test_igraph_reads_the_same(network, tmp_path):
    layer_graph(network).to_graphml(tmp_path / "layers.graphml")
    read = igraph.Graph.Read_GraphML(str(tmp_path / "layers.graphml"))
    graph = layer_graph(network)
    assert read.vs["name"] == [node.name for node in graph.nodes]
    assert read.get_edgelist() == [(edge.source, edge.target) for edge in graph.edges]


def test_names_that_mean_something_in_xml_come_through(tmp_path):
    layer_graph(nasty_graph()).to_graphml(tmp_path / "nasty.graphml")
    read = networkx.read_graphml(tmp_path / "nasty.graphml")
    assert [data["name"] for _, data in read.nodes(data=True)] == NASTY
    broken = PathGraph.from_edges([(0, 1)], layers=["bell \x07 and \ud800", "line\nbreak"])
    layer_graph(broken).to_graphml(tmp_path / "broken.graphml")
    read = networkx.read_graphml(tmp_path / "broken.graphml")
    assert [data["name"] for _, data in read.nodes(data=True)] == [
        "bell \ufffd and \ufffd",
        "line\nbreak",
    ]


# DOT


def parsed_dot(text: str) -> pydot.Dot:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pydot uses old names of pyparsing
        (parsed,) = pydot.graph_from_dot_data(text)
    return parsed


def dot_labels(text: str) -> list[list[str]]:
    """The lines of the label of each node, escapes undone."""
    nodes = parsed_dot(text).get_nodes()
    labels = [node.get("label")[1:-1] for node in nodes if re.fullmatch(r"n\d+", node.get_name())]
    found = []
    for label in labels:
        lines, line, escaped = [], "", False
        for character in label:
            if escaped and character == "n":
                lines.append(line)
                line = ""
            elif escaped or character != "\\":
                line += character
            escaped = character == "\\" and not escaped
        # Graphviz reads character entities in labels; pydot leaves them as they are
        found.append([html.unescape(part) for part in [*lines, line]])
    return found


def test_dot_is_the_layer_graph(network):
    parsed = parsed_dot(layer_graph(network).to_dot())
    graph = layer_graph(network)
    edges = {
        (edge.get_source(), edge.get_destination()): edge.get("style")
        for edge in parsed.get_edges()
    }
    assert edges == {
        (f"n{edge.source}", f"n{edge.target}"): "dashed" if edge.skip else None
        for edge in graph.edges
    }
    assert "dashed" in edges.values()
    labels = dot_labels(layer_graph(network).to_dot())
    assert [(label[0], label[1]) for label in labels] == [
        (node.name, node.operation) for node in graph.nodes
    ]
    assert labels[2][2] == "4 of 4 units active"
    assert labels[0][2] == "3 units"


def test_names_that_mean_something_in_dot_come_through():
    assert [label[0] for label in dot_labels(layer_graph(nasty_graph()).to_dot())] == NASTY


def test_activation_layers_are_filled_in_proportion(network):
    half = network.graph.with_activity({"0.act": [1, 0, 0, 0], "2.act": 0})
    text = layer_graph(pathlen.measure(half)).to_dot()
    assert re.search(r'label="0.act.*style=striped, fillcolor="#9ecae1;0.2500:#e0e0e0"', text)
    assert re.search(r'label="2.act.*fillcolor="#e0e0e0"', text)
    assert 'label="1\\nrelu\\n3 of 3 units active", fillcolor="#9ecae1"' in text


def test_names_that_no_encoding_holds_do_not_stop_a_file(tmp_path):
    graph = PathGraph.from_edges([(0, 1)], layers=["half of \ud800", "b"])
    for write in (layer_graph(graph).to_dot, layer_graph(graph).to_mermaid):
        write(tmp_path / "file")
        assert "half of ?" in (tmp_path / "file").read_text(encoding="utf-8")


# Mermaid


MERMAID_NODE = re.compile(r'    n(\d+)(?:\["([^"\n]*)"\]|\(\["([^"\n]*)"\]\))')
MERMAID_EDGE = re.compile(r"    n(\d+) (-->|-\.->) n(\d+)")
MERMAID_CLASS = re.compile(r"    class n\d+(,n\d+)* (active|partly|linear)")
MERMAID_DEFINITION = re.compile(r"    classDef (active|partly|linear) fill:#\w{6},color:#\w{6}")


def parsed_mermaid(text: str) -> tuple[list[list[str]], dict]:
    """Labels of the nodes as lines with characters named by number undone, and the edges."""
    first, *lines = text.splitlines()
    assert first == "flowchart TD"
    labels, edges = [], {}
    for line in lines:
        if match := MERMAID_NODE.fullmatch(line):
            assert int(match[1]) == len(labels)
            label = match[2] or match[3]
            labels.append(
                [
                    html.unescape(re.sub(r"#(\d+);", r"&#\1;", part.replace("&", "&amp;")))
                    for part in label.split("<br/>")
                ]
            )
        elif match := MERMAID_EDGE.fullmatch(line):
            edges[int(match[1]), int(match[3])] = match[2] == "-.->"
        else:
            assert MERMAID_CLASS.fullmatch(line) or MERMAID_DEFINITION.fullmatch(line), line
    return labels, edges


@pytest.mark.parametrize("make", [figure_1, nasty_graph, lambda: pruned_perceptron()])
def test_mermaid_is_the_layer_graph(make):
    measured = make()
    labels, edges = parsed_mermaid(layer_graph(measured).to_mermaid())
    graph = layer_graph(measured)
    assert [label[0] for label in labels] == [node.name for node in graph.nodes]
    assert edges == {(edge.source, edge.target): edge.skip for edge in graph.edges}


def test_mermaid_tells_active_partly_and_linear_layers(network):
    graph = network.graph.with_activity({"0.act": [1, 0, 0, 0], "2.act": 0})
    text = layer_graph(pathlen.measure(graph)).to_mermaid()
    names = [node.name for node in layer_graph(graph).nodes]
    for state, name in {"partly": "0.act", "linear": "2.act", "active": "1"}.items():
        assert f"    class n{names.index(name)} {state}\n" in text


# Files


def test_files_are_replaced_whole_or_not_at_all(network, tmp_path):
    for write, name in (
        (layer_graph(network).to_graphml, "a.graphml"),
        (layer_graph(network).to_dot, "a.dot"),
        (layer_graph(network.graph).to_mermaid, "a.mmd"),
    ):
        path = tmp_path / name
        path.write_text("old")
        assert write(path) is None
        assert path.read_text() != "old"
        with pytest.raises(ReportError, match="is a folder; give the name of a file"):
            write(tmp_path)
        with pytest.raises(ReportError, match="there is no folder"):
            write(tmp_path / "nowhere" / name)
    assert (tmp_path / "a.dot").read_text() == layer_graph(network).to_dot()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dot", "a.graphml", "a.mmd"]


# Tables


def test_the_frame_has_a_row_a_layer(network):
    frame = network.to_dataframe()
    assert list(frame["name"]) == [row.name for row in network.layers]
    assert frame["contribution"].sum() == pytest.approx(network.average_path_length)
    assert frame["active"].sum() == network.num_active
    assert [str(kind) for kind in frame.dtypes[["units", "contribution", "activation"]]] == [
        "int64",
        "float64",
        "bool",
    ]
    exact = pathlen.measure(network.graph, exact=True).to_dataframe()
    assert exact["contribution"].to_numpy() == pytest.approx(frame["contribution"].to_numpy())
    pruned = pruned_perceptron().to_dataframe()
    assert list(pruned["dead"]) == [0, 3, 3, 10, 10, 0, 0]
    assert "magnitude_contribution" in pruned
    assert "magnitude_contribution" not in frame


def test_without_pandas_the_way_to_get_it_is_told(network, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ReportError, match=r"pip install 'pathlen\[pandas\]'"):
        network.to_dataframe()


# The schema of JSON reports


@pytest.fixture(scope="module")
def validator():
    schema = pathlen.report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def undocumented(record: object, schema: dict, root: dict) -> set[str]:
    """Names in a record that its schema does not list."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(record, list):
        return {name for part in record for name in undocumented(part, schema["items"], root)}
    if not isinstance(record, dict) or "properties" not in schema:
        return set()
    known = schema["properties"]
    inside = (undocumented(record[name], known[name], root) for name in record if name in known)
    return set(record) - set(known) | set().union(*inside)


def reports():
    residual = nn.Sequential(Block(3, 4), nn.ReLU())
    pruned = pruned_perceptron()
    soft = figure_1().with_activity([0, *[0.25] * (figure_1().num_nodes - 2), 0])
    chain = PathGraph.from_edges([(0, 1), (1, 2)], activity=[0, 0.25, 0])
    for measured in (figure_1(), soft, chain, nasty_graph(), pruned.graph):
        for exact in (False, True):
            yield pathlen.measure(measured, exact=exact)
    yield pathlen.measure(residual, torch.zeros(1, 3))
    yield pathlen.measure(pruned.graph, backend="scipy")


def test_real_reports_are_of_the_schema(validator):
    seen = set()
    for report in reports():
        record = json.loads(report.to_json())
        validator.validate(record)
        assert record["schema_version"] == SCHEMA_VERSION
        assert not undocumented(record, validator.schema, validator.schema)
        seen |= set(record)
    # whatever the schema lists is seen, except for what the command line adds
    assert set(validator.schema["properties"]) - seen == {"path_length_distribution"}


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"path_count": 257},
        {"average_path_length": "long"},
        {"average_path_length_exact": "0.5"},
        {"status": "fine"},
        {"layers": []},
        {"width_profile": [-1]},
        {"num_active": None},
    ],
)
def test_other_records_are_not_of_the_schema(validator, change):
    record = {**pathlen.measure(figure_1()).to_dict(), **change}
    assert not validator.is_valid(record)
    del record["layers"]
    assert not validator.is_valid(record)


def test_the_schema_is_shipped_and_of_this_version(validator):
    root = Path(__file__).parent.parent
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "report.schema.json" in data["package-data"]["pathlen.report"]
    assert validator.schema["properties"]["schema_version"] == {
        **validator.schema["properties"]["schema_version"],
        "const": SCHEMA_VERSION,
    }
    assert validator.schema["$id"].endswith(f":{SCHEMA_VERSION}")


# The command


@pytest.fixture
def model_file(tmp_path) -> str:
    path = tmp_path / "perceptron.py"
    path.write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(1, 3)\n"
    )
    return f"{path}:make"


def run(*arguments: str):
    return CliRunner().invoke(main, ["export", *arguments], catch_exceptions=False)


def test_export_to_standard_output_and_to_a_file(model_file, tmp_path, validator):
    for form in ("graphml", "dot", "mermaid", "json", "csv"):
        shown = run(model_file, "--format", form)
        assert shown.exit_code == 0, shown.stderr
        target = tmp_path / f"out.{form}"
        done = run(model_file, "--format", form, "-o", str(target))
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        if form != "json":  # which has the time taken
            assert target.read_text() == shown.stdout
    assert len(parsed_dot((tmp_path / "out.dot").read_text()).get_edges()) == 4
    assert networkx.read_graphml(tmp_path / "out.graphml").number_of_nodes() == 5
    assert len(parsed_mermaid((tmp_path / "out.mermaid").read_text())[0]) == 5
    validator.validate(json.loads((tmp_path / "out.json").read_text()))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [(row["name"], row["units"], row["active"]) for row in rows] == [
        ("input", "3", "0"),
        ("0", "4", "0"),
        ("1", "4", "4"),
        ("2", "2", "0"),
        ("output", "2", "0"),
    ]
    units = run(model_file, "--format", "graphml", "--units")
    assert units.stdout.count("<node ") == 3 + 1 + 4 + 4 + 1 + 2 + 2


def test_the_distribution_of_measure_is_of_the_schema(model_file, validator):
    arguments = ["measure", model_file, "--distribution", "--json", "--exact"]
    record = json.loads(CliRunner().invoke(main, arguments).stdout)
    validator.validate(record)
    assert not undocumented(record, validator.schema, validator.schema)
    assert "path_length_distribution" in record


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--format'"),
        (["--format", "gexf"], "'gexf' is not one of"),
        (["--format", "csv", "--units"], "--units is for --format graphml"),
        (["--format", "csv", "-o", "nowhere/out.csv"], "there is no folder nowhere"),
        (["--format", "csv", "--backend", "nmba"], "no backend 'nmba'"),
    ],
)
def test_errors_of_the_user_give_a_message_and_code_2(model_file, arguments, message):
    result = run(model_file, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
