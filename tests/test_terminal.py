"""Tables of layers: folded, sorted, cut, as wide as a terminal; and what a terminal gets to see."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import textwrap
from dataclasses import replace
from fcntl import ioctl
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from torch import nn

import pathlen
from pathlen.errors import PathlenError
from pathlen.show.columns import bar, fitting_columns, shares_bar
from pathlen.show.table import SORTS, LayerView, folded, short_name
from pathlen.show.terminal import layer_table, print_distribution, print_report
from tests.vision import import_torchvision


class Block(nn.Module):
    """x + act(linear(x)), with so many linear units."""

    def __init__(self, linear: int) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(8, 8), nn.PReLU(8, init=0.0)
        with torch.no_grad():
            self.act.weight[:linear] = 1

    def forward(self, x):
        return x + self.act(self.linear(x))


def blocks(number: int = 12) -> nn.Module:
    """Two stages of blocks that get more linear, and a plain ReLU before them."""
    stages = [nn.Sequential(*[Block(i % 9) for i in range(number)]) for _ in range(2)]
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), *stages, nn.Linear(8, 2))


@pytest.fixture(scope="module")
def report():
    return pathlen.measure(blocks(), torch.zeros(1, 3), exact=True)


@pytest.fixture(scope="module")
def long_report():
    return pathlen.measure(blocks(40), torch.zeros(1, 3))


# ------------------------------------------------------------------ rows


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_folded_rows_add_up_to_the_averages(report, depth):
    rows = folded(report.activation_layers, depth)
    names = {".".join(row.name.split(".")[:depth]) for row in report.activation_layers}
    assert {".".join(row.name.split(".")[:depth]) for row in rows} == names
    assert len(rows) == len(names)
    assert sum(row.contribution for row in rows) == report.average_path_length
    assert sum(row.normalized_contribution for row in rows) == Fraction(
        report.normalized_average_path_length
    )
    assert sum(row.active for row in rows) == report.num_active
    assert sum(row.units for row in rows) == sum(row.units for row in report.activation_layers)


def test_what_has_no_more_parts_is_not_folded(report):
    rows = folded(report.activation_layers, 1)
    assert [(row.name, row.operation) for row in rows] == [
        ("1", "relu"),
        ("2", "12 prelu"),
        ("3", "12 prelu"),
    ]
    assert folded(report.activation_layers, 3) == report.activation_layers

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.linear = nn.ReLU(), nn.Linear(4, 4)

        def forward(self, x):
            return self.act(self.linear(self.act(self.linear(x))))

    twice = pathlen.measure(Twice(), torch.zeros(1, 4))
    assert [row.name for row in folded(twice.activation_layers, 1)] == ["act", "act#2"]


def test_layers_of_different_operations(report):
    rows = folded([*report.layers], 1)
    mixed = next(row for row in rows if row.name == "2")
    assert mixed.operation == "36 layers"  # of each block: linear, prelu, add


@pytest.mark.parametrize("sort", ["units", "active", "linear", "average", "normalized"])
def test_numbers_are_sorted_from_the_largest_down(report, sort):
    rows = LayerView(sort).rows(report)
    number = {
        "units": lambda row: row.units,
        "active": lambda row: row.active,
        "linear": lambda row: row.units - row.active,
        "average": lambda row: row.contribution,
        "normalized": lambda row: row.normalized_contribution,
    }[sort]
    values = [number(row) for row in rows]
    assert values == sorted(values, reverse=True)
    assert set(rows) == set(report.activation_layers)
    # equal ones stay in the order of the network
    place = {row.name: i for i, row in enumerate(report.activation_layers)}
    for before, after in itertools.pairwise(rows):
        if number(before) == number(after):
            assert place[before.name] < place[after.name]


def test_names_are_sorted_as_people_count(report):
    names = [row.name for row in LayerView("name").rows(report)]
    assert names[:4] == ["1", "2.0.act", "2.1.act", "2.2.act"]
    assert names.index("2.2.act") < names.index("2.10.act")


def test_magnitudes_need_weights(report):
    with pytest.raises(PathlenError, match="--edges weights"):
        LayerView("magnitude").rows(report)
    weighted = pathlen.measure(blocks(2), torch.zeros(1, 3), edges="weights")
    rows = LayerView("magnitude", depth=1).rows(weighted)
    total = sum(row.magnitude_contribution for row in rows)
    assert total == pytest.approx(weighted.magnitude_average_path_length, rel=1e-9)
    values = [row.magnitude_contribution for row in rows]
    assert values == sorted(values, reverse=True)


# ------------------------------------------------------------------ plain text


def test_the_plain_text_by_default_is_that_of_the_report(report, long_report):
    assert LayerView().text(report) == str(report)
    assert LayerView().text(long_report) == str(long_report)
    assert "... 51 more layers ..." in str(long_report)
    weighted = pathlen.measure(blocks(2), torch.zeros(1, 3), edges="weights")
    assert LayerView().text(weighted) == str(weighted)


def test_the_number_of_rows(long_report):
    def names(view):
        table = view.text(long_report).split("\n\n")[1].splitlines()[1:]
        return [line.split("  ")[0] for line in table]

    everything = [row.name for row in long_report.activation_layers]
    assert names(LayerView(limit=0)) == everything
    assert names(LayerView(limit=81)) == everything
    cut = names(LayerView(limit=5))
    assert cut == [*everything[:3], "... 76 more layers ...", *everything[-2:]]
    first, second, *_ = LayerView("active").rows(long_report)
    cut = names(LayerView("active", limit=2))
    assert cut == [first.name, second.name, "... 79 more layers ..."]


def test_a_network_without_activations_has_no_table():
    report = pathlen.measure(nn.Linear(2, 2), torch.zeros(1, 2))
    assert LayerView().text(report) == str(report)
    console = Console(file=io.StringIO(), width=80)
    print_report(report, "linear", LayerView(), console)
    assert "layer " not in console.file.getvalue()


# ------------------------------------------------------------------ names and bars

NAMES = st.lists(st.text("abcdefgh_0123456789", min_size=1, max_size=30), min_size=1, max_size=9)


@given(NAMES, st.integers(4, 60))
def test_a_short_name_fits(parts, width):
    name = ".".join(parts)
    short = short_name(name, width)
    assert len(short) <= width
    if len(name) <= width:
        assert short == name


@pytest.mark.parametrize("width", [20, 24, 40])
def test_short_names_tell_blocks_apart(width):
    names = [
        f"bert.encoder.layer.{i}.intermediate.intermediate_act_fn{call}"
        for i in range(24)
        for call in ("", "#2")
    ]
    assert len({short_name(name, width) for name in names}) == len(names)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(2, 30))
def test_the_bar_of_shares(active, linear, width):
    if active + linear == 0:
        return
    text = shares_bar(active, active + linear, width, "#", ".").plain
    assert len(text) == width
    assert ("#" in text) == (active > 0)
    assert ("." in text) == (linear > 0)
    assert abs(text.count("#") - width * active / (active + linear)) <= 1


@given(st.floats(0, 1), st.integers(1, 30), st.booleans())
def test_the_bar_of_a_contribution(share, width, unicode):
    text = bar(share, width, unicode).plain
    assert len(text) <= width
    assert (text == "") == (share == 0)
    # cells of eighths: a full block is eight of them
    eighths = sum(8 if c in "█#" else " ▏▎▍▌▋▊▉".index(c) for c in text)
    assert abs(eighths - 8 * width * share) <= (8 if not unicode or eighths == 1 else 0.5 + 1e-9)


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize("width", [10, 30, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("sort", [sort for sort in SORTS if sort != "magnitude"])
def test_a_table_is_never_wider_than_the_terminal(report, width, sort):
    view = LayerView(sort, limit=7)
    console = Console(file=io.StringIO(), width=width)
    console.print(layer_table(view.rows(report), view, console))
    lines = console.file.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    hidden = len(report.activation_layers) - 7
    assert len(lines) == 1 + 7 + 1 + (2 if width > 20 else 1)  # rule, rows, gap, head
    if width >= 40:
        assert any(f"... {hidden} more" in line for line in lines)


def test_numbers_of_a_table_are_those_of_the_report(report):
    view = LayerView("average", limit=0)
    console = Console(file=io.StringIO(), width=160)
    rows = view.rows(report)
    console.print(layer_table(rows, view, console))
    lines = console.file.getvalue().splitlines()[3:]
    for row, line in zip(rows, lines, strict=True):
        cells = [cell for cell in line.split() if not set(cell) <= set("█░▏▎▍▌▋▊▉")]
        assert cells == [
            row.name,
            row.operation,
            str(row.active),
            str(row.units),
            f"{float(row.contribution):.4f}",
            f"{float(row.normalized_contribution):.4f}",
        ]


def test_what_a_wide_terminal_shows_and_a_narrow_one_leaves_out(report):
    def heads(width, sort="network"):
        columns = fitting_columns(report.activation_layers, sort, width)
        return [column.head.replace("\n", " ") for column in columns]

    assert heads(100) == [
        "layer",
        "operation",
        "active",
        "of units",
        "active █ linear ░",
        "of average",
        "of normalized",
        "",
    ]
    assert heads(30) == ["layer", "active", "of normalized"]
    assert heads(30, "average") == ["layer", "active", "of average"]


def test_names_are_not_read_as_markup(report):
    rows = [replace(report.activation_layers[0], name="[red]x[/red]")]
    console = Console(file=io.StringIO(), width=80)
    console.print(layer_table(rows, LayerView(), console))
    assert "[red]x[/red]" in console.file.getvalue()


def test_a_terminal_without_blocks_gets_ascii(report):
    bytes_ = io.BytesIO()
    console = Console(file=io.TextIOWrapper(bytes_, encoding="latin-1"), width=60)
    print_report(report, "blocks", LayerView(), console)
    from pathlen.show.distribution import distribution_tables

    print_distribution(distribution_tables(report), console)
    console.file.flush()
    text = bytes_.getvalue().decode("latin-1")
    assert text.isascii()
    assert "####...." in text


# ------------------------------------------------------------------ the command on a terminal


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn

            def make():
                print("made")
                layers = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)]
                return nn.Sequential(*layers), torch.ones(1, 3)
            """
        )
    )
    return f"{path}:make"


def on_terminal(*arguments, width=80, stdout=True, environment=()):
    """What a command writes on a terminal of that width, and on a pipe where it has one."""
    control, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    variables = {key: value for key, value in os.environ.items() if key not in unset}
    process = subprocess.Popen(
        [sys.executable, "-m", "pathlen", *arguments],
        stdin=terminal,
        stdout=terminal if stdout else subprocess.PIPE,
        stderr=terminal,
        env={**variables, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        | dict(environment),
    )
    os.close(terminal)
    written = b""
    while select.select([control], [], [], 120)[0]:
        try:
            part = os.read(control, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        written += part
    os.close(control)
    piped = process.communicate()[0] if process.stdout else b""
    assert process.wait() == 0, written.decode()
    return written.decode().replace("\r\n", "\n"), piped.decode()


def without_codes(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_terminal_gets_tables_and_the_stages(model_file):
    written, _ = on_terminal("measure", model_file, "--distribution")
    assert "\x1b[1;36m2 " in written  # the average, bold
    shown = without_codes(written)
    assert f"making {model_file}"[:70] in shown
    assert re.search(r"^1 +relu +4 +4 +█+ +1\.0000 +1\.0000 +█+ *$", shown, re.MULTILINE)
    assert re.search(r"^2 +1\.0000 +█+ +1\.0000 +█+ *$", shown, re.MULTILINE)
    table = shown[shown.index("layer ") :]
    assert max(map(cell_len, table.splitlines())) <= 80


def test_no_color_is_respected(model_file):
    written, _ = on_terminal("measure", model_file, environment={"NO_COLOR": "1"})
    codes = set(re.findall(r"\x1b\[([0-9;]*)m", written))
    colours = re.compile(r"(^|;)(3[0-8]|4[0-8]|9[0-7]|10[0-7])(;|$)")
    assert not [code for code in codes if colours.search(code)]
    assert "█" in written


def test_a_pipe_gets_plain_text_also_where_messages_go_to_a_terminal(model_file):
    written, piped = on_terminal("measure", model_file, stdout=False)
    plain = subprocess.run(
        [sys.executable, "-m", "pathlen", "measure", model_file],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FORCE_COLOR": "1"},
    )
    seconds = re.compile(r"\(trace.*\)")
    assert seconds.sub("", piped) == seconds.sub("", plain.stdout)
    assert piped.startswith("made\naverage path length             2\n")
    assert "layer  operation  units  active  of average  of normalized" in piped
    assert "\x1b" not in piped
    assert plain.stderr == ""
    assert "tracing" in without_codes(written)


def test_a_terminal_that_can_only_print_gets_plain_text(model_file):
    written, _ = on_terminal("measure", model_file, environment={"TERM": "dumb"})
    assert "layer  operation  units  active  of average  of normalized" in written
    assert "\x1b" not in written


def test_json_on_a_terminal_is_json(model_file):
    _, piped = on_terminal("measure", model_file, "--json", stdout=False)
    assert json.loads(piped.removeprefix("made\n"))["path_count"] == "120"


def test_the_page_on_the_command_line_shows_the_real_tables():
    page = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text()
    shown = re.search(r"```text\n(torchvision:resnet18\n.*?)```", page, re.DOTALL)[1]
    model = import_torchvision().models.resnet18()
    measured = pathlen.measure(model, torch.zeros(1, 3, 224, 224), backend="exact")
    measured = replace(measured, seconds=dict.fromkeys(measured.seconds, 0.5))
    console = Console(file=io.StringIO(), width=84)
    print_report(measured, "torchvision:resnet18", LayerView(depth=1), console)
    printed = [line.rstrip() for line in console.file.getvalue().splitlines()]
    seconds = re.compile(r"\d+\.\d+ s")
    assert seconds.sub("", "\n".join(printed)) == seconds.sub("", shown.rstrip("\n"))
