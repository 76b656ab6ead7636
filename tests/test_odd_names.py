"""Names that hold anything, in all that people read: tables, CSV, logs, progress, errors."""

from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner
from rich.console import Console

import pathlen
from pathlen import PathGraph
from pathlen.cli.export import export_text
from pathlen.cli.main import main
from pathlen.cli.options import print_table
from pathlen.cli.study import _cells, _csv
from pathlen.report.whatif import greedy_linearization
from pathlen.show.table import SORTS, LayerView
from pathlen.show.terminal import print_report
from pathlen.training.groups import warn_of_decay
from pathlen.training.progress import Bars, Lines
from pathlen.training.study.results import Case, Results
from pathlen.training.summary import summary_table

NAMES = [
    "\x1b]0;owned\x07",
    "a\x1b[2J\x1b[31mb",
    "exe.\u202egpj",
    "\u2066x\u2069\u200f",
    "half \ud800",
    "two\nlines\r\x0b\x0c",
    "tab\tand\0null",
    "\u2028sep\u2029\x85",
    "\u200bno\ufeffwidth",
    "n" * 10_000,
    "9" * 10_000,
    "\x1b" * 10_000,
    "[red]markup[/red] [/]",
    "=cmd|' /C calc'!A0",
    "+1+2",
    "-1+2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "  =1",
    "\uff1d1",
    '"=1"',
    "層.größe",
]


def graph(name, active=1.0):
    layers = [name, f"{name}.act", f"{name}.out"]
    return PathGraph.from_edges([(0, 1), (1, 2)], activity=[0, active, 0], layers=layers)


def clean(text, longest=3000):
    """Nothing that moves a cursor, turns a line round or cannot be encoded; no line without end."""
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line[:200])
        assert len(line) <= longest
    text.encode("utf-8")
    return text


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_reports(name):
    report = pathlen.measure(graph(name))
    clean(str(report))
    clean(str(pathlen.compare(report, pathlen.measure(graph(name, 0.0)))))
    clean(str(greedy_linearization(graph(name), 0)))
    for sort in SORTS[:-1]:
        view = LayerView(sort, 1 if sort == "units" else None, 0)
        clean(view.text(report))
        file = io.StringIO()
        print_report(report, name, view, Console(file=file, width=100, color_system=None))
        clean(file.getvalue(), 100)


@pytest.mark.parametrize("name", NAMES)
def test_csv(name):
    report = pathlen.measure(graph(name))
    texts = [export_text(report, "csv"), _csv([{f"label_{name}": name, name: -1.5, "n": -3}])]
    for text in texts:
        clean(text, 1_000_000)
        for row in csv.reader(io.StringIO(text)):
            for cell in row:
                begin = cell.lstrip()[:1]
                assert begin not in "=+-@\t\r\uff1d" or not begin or float(cell) < 0, cell[:99]
    assert texts[1].rstrip().endswith("-1.5,-3")  # numbers stay numbers
    assert len([*csv.reader(io.StringIO(texts[0]))]) == 4


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_logs_of_runs(name, capsys):
    rows = {name: {"test_accuracy": 0.5, "napl": 1.0, "active_units": 3}}
    for kind in (Lines, Bars):
        file = io.StringIO()
        watcher = kind(Console(file=file, width=100, color_system=None))
        watcher.say(f"{name} is in {name}")
        watcher.end({"phases": rows})
        clean(file.getvalue())
    file = io.StringIO()
    Console(file=file, width=100, color_system=None).print(summary_table({"phases": rows}))
    clean(file.getvalue(), 100)
    results = Results({}, (), (Case({name: name}, (), 2),))
    print_table(*_cells(results), title=name)
    clean(capsys.readouterr().out)


@pytest.mark.parametrize("name", NAMES)
def test_errors_of_the_command(name):
    if "\0" in name:
        return  # no argument of a program has one
    for command in (
        *(["measure", name], ["measure", f"{name}:{name}"], ["measure", f"{name}.pt2"]),
        *(["train", name], ["train", "digits", f"{name}={name}"], ["study", "status", name]),
        *(["study", "run", f"{name}.yaml"], ["export", name, "--format", "csv"]),
    ):
        result = CliRunner().invoke(main, ["--", *command] if name.startswith("-") else command)
        if name.startswith(("-", "\r-")) and result.exit_code == 2:
            continue  # told by click as an option
        assert result.exit_code == 2, result.exception
        clean(result.stderr, 9000)
        assert len(result.stderr) < 20_000


def test_warnings():
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(2, 2))
    model.add_module("\x1b[31m" + "n" * 10_000, nn.PReLU(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    with pytest.warns(UserWarning, match="weight decay pulls") as caught:
        warn_of_decay(model, optimizer)
    assert len(clean(str(caught[0].message))) < 1000


@pytest.mark.parametrize("name", ["$x_{$", "a$b$c^", "\\$", *NAMES[4:7], "n" * 10_000])
def test_figures(name, tmp_path):
    """Names between dollars were read as formulas, and half a pair could not be drawn."""
    from matplotlib import pyplot

    report = pathlen.measure(graph(name))
    row = {"test_accuracy": 0.5, "napl": 1.0, "active_units": 2, "epoch": 1, "phase": name}
    rows = [row, {**row, "epoch": 2, "napl": 2.0, name: 1.0, "case": name, "series": name}]
    drawn = [
        pathlen.figures.plot_contributions(report),
        pathlen.figures.plot_width_profile(report),
        pathlen.figures.plot_core_network(report),
        pathlen.figures.plot_training(rows),
        pathlen.figures.plot_tradeoff({name: [(1.0, 0.5), (2.0, 0.6)]}, knee={name: (1, 0, 2)}),
        pathlen.figures.plot_trend(rows[1:], x="napl", y=name),
        pathlen.figures.plot_cases(rows[1:], metric=name),
    ]
    for axes in drawn:
        pathlen.figures.save(axes, tmp_path / "figure.png", dpi=20)
        pyplot.close(axes.figure)


MODEL = """
from torch import nn
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self._modules["half \\ud800"] = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    def forward(self, x):
        return self._modules["half \\ud800"](x)
"""


@pytest.mark.parametrize("form", ["dot", "mermaid", "json", "graphml", "csv"])
def test_exports_to_the_terminal_are_those_to_a_file(form, tmp_path):
    """A name that cannot be encoded ended in a traceback."""
    (tmp_path / "model.py").write_text(MODEL)
    command = ["export", f"{tmp_path}/model.py:Model", "--input", "1,3", "--format", form]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0, shown.exception
    assert CliRunner().invoke(main, [*command, "-o", f"{tmp_path}/file"]).exit_code == 0
    texts = [shown.stdout_bytes.decode(), (tmp_path / "file").read_text()]
    if form == "json":  # which says how long it took
        texts = [json.loads(text) | {"seconds": None} for text in texts]
    assert texts[0] == texts[1]
