"""What goes into the HTML report, and how its file is written; tests/test_html_page.py opens it."""

from __future__ import annotations

import builtins
import json
import re
from fractions import Fraction
from importlib import resources

import numpy as np
import pytest
from click.testing import CliRunner

import pathlen
from pathlen.cli.main import main
from pathlen.errors import ReportError
from pathlen.html.data import page_data
from pathlen.html.page import SCRIPTS, page_text, script_json
from pathlen.html.strips import SEGMENTS, strips

FOLDER = resources.files("pathlen.html")


def layer_of(states: list[float]) -> pathlen.Report:
    """An input unit, a layer of units with these activities, each reading the input, an output."""
    count = len(states)
    edges = [(0, 1 + unit) for unit in range(count)] + [
        (1 + unit, count + 1) for unit in range(count)
    ]
    names = ["x", *["act"] * count, "y"]
    return pathlen.measure(
        pathlen.PathGraph.from_edges(edges, activity=[0, *states, 0], layers=names)
    )


def test_a_strip_has_a_piece_for_each_run_of_channels():
    assert strips(layer_of([1, 1, 0, 1, 0, 0]))["act"] == [2, 0, 0, 0, 1, 0, 1, 0, 0, 0, 2, 0]


def test_a_strip_of_many_runs_has_equal_pieces():
    states = [place % 2 for place in range(1000)]
    pieces = np.reshape(strips(layer_of(states))["act"], (-1, 3))
    assert len(pieces) == SEGMENTS
    assert pieces.sum(axis=0).tolist() == [500, 500, 0]
    assert pieces.sum(axis=1).max() - pieces.sum(axis=1).min() <= 1


def test_dead_channels_stand_at_their_places():
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.fill_(1)
        model[2].weight[:, [0, 3]] = 0  # nothing reads these two units
    report = pathlen.measure(pathlen.trace(model, torch.ones(1, 3), edges="weights"))
    assert strips(report)["1"] == [0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0, 0]
    data = page_data(report, "", None)
    assert data["layers"]["dead"][data["layers"]["name"].index("1")] == 2


def test_the_data_is_that_of_the_report():
    report = layer_of([1, 0.5, 0])
    data = page_data(report, "a title", None)
    assert data["title"] == "a title"
    assert data["averages"] == {
        "uniform": pytest.approx(report.average_path_length, rel=1e-5),
        "normalized": pytest.approx(report.normalized_average_path_length, rel=1e-5),
    }
    layers = data["layers"]
    assert layers["name"] == ["x", "act", "y"]
    assert layers["units"] == [1, 3, 1]
    assert layers["active"] == [0, 2, 0]
    for weighting in data["weightings"]:
        total = sum(layers["contribution"][weighting])
        assert total == pytest.approx(data["averages"][weighting], rel=1e-5)
        shares = data["distribution"]["share"][weighting]
        assert sum(shares) == pytest.approx(1, rel=1e-5)
    assert data["edges"]["source"] == [0, 1]
    assert data["edges"]["target"] == [1, 2]


def test_a_report_in_fractions_has_the_page_of_its_floats():
    graph = layer_of([1, 0, 0]).graph
    exact = pathlen.measure(graph, exact=True)
    assert exact.average_path_length == Fraction(1, 3)
    found = page_data(exact, "", None)
    wanted = page_data(pathlen.measure(graph), "", None)
    assert found["trace"].pop("exact") is True
    for name in ("layers", "edges", "distribution", "averages"):
        assert found[name] == wanted[name]


def test_a_distribution_that_needs_too_much_memory_is_told_and_not_drawn():
    report = layer_of([1] * 50)
    found = page_data(report, "", memory_limit=1)["distribution"]
    assert set(found) == {"absent"}
    assert "memory" in found["absent"]


@pytest.mark.parametrize(
    "name", ["</script>", "<!--<script>", "&lt;", "\u2028\u2029", "\ud800", "é"]
)
def test_json_within_a_script_element(name):
    text = script_json({name: name})
    assert not set("<>&\u2028\u2029") & set(text)
    assert text.isascii()
    assert json.loads(text) == {name: name}


def test_the_scripts_are_all_there_and_none_ends_its_element():
    on_disk = {entry.name for entry in FOLDER.iterdir() if entry.name.endswith(".js")}
    assert set(SCRIPTS) == on_disk
    for name in SCRIPTS:
        text = FOLDER.joinpath(name).read_text(encoding="utf-8")
        assert "</script" not in text.lower()
        assert "innerHTML" not in text  # what came from the model is never parsed as HTML
        assert set(re.findall(r"https?://[^\"' ]*", text)) <= {"http://www.w3.org/2000/svg"}


def test_the_same_report_gives_the_same_small_page():
    report = layer_of([1, 0])
    text = page_text(report, "small")
    assert len(text) < 3_000_000
    assert text == page_text(report, "small")


def contrast(one: str, other: str) -> float:
    """The contrast of two colours "#rrggbb", as WCAG 2 defines it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def themes() -> dict[str, dict[str, str]]:
    style = FOLDER.joinpath("style.css").read_text(encoding="utf-8")
    found = {}
    for theme, opening in (
        ("light", ":root {"),
        ("dark by the system", ':root:not([data-theme="light"]) {'),
        ("dark by the switch", ':root[data-theme="dark"] {'),
    ):
        (block,) = re.findall(re.escape(opening) + r"(.*?)}", style, re.DOTALL)
        found[theme] = dict(re.findall(r"--([\w-]+): (#\w+);", block))
    return found


def test_both_dark_themes_are_one():
    colours = themes()
    assert colours["dark by the system"] == colours["dark by the switch"]
    assert colours["dark by the switch"].keys() == colours["light"].keys()


@pytest.mark.parametrize("theme", ["light", "dark by the switch"])
def test_colours_have_the_contrast_of_wcag_aa(theme):
    colours = themes()[theme]
    for text in ("text", "soft"):
        for ground in ("ground", "raised", "frame", "match"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for text in ("good", "warn", "focus"):
        assert contrast(colours[text], colours["ground"]) >= 4.5, text
    for mark in ("line", "active", "dead", "skip", "uniform", "normalized", "magnitude"):
        for ground in ("ground", "frame"):
            assert contrast(colours[mark], colours[ground]) >= 3, (mark, ground)
    # Linear channels are told by the outline of their strip, and from the others by contrast.
    assert contrast(colours["active"], colours["linear"]) >= 3


def test_writes_all_of_the_file_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    report = layer_of([1, 0])
    report.to_html(path)
    assert "<title>report</title>" in path.read_text(encoding="utf-8")
    path.write_text("as it was")
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(ReportError, match=r"report\.html cannot be written: no room"):
        report.to_html(path)
    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_a_title_that_is_no_text_is_written_all_the_same(tmp_path):
    layer_of([1]).to_html(tmp_path / "page.html", title="\udc80 &")
    assert "<title>? &amp;</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def refuse(*_: object) -> None:
    raise OSError(28, "no room")


def test_refuses_folders_that_are_not_there_and_paths_that_are_folders(tmp_path):
    report = layer_of([1])
    with pytest.raises(ReportError, match=r"no folder .*nowhere; make it first"):
        report.to_html(tmp_path / "nowhere" / "report.html")
    with pytest.raises(ReportError, match="is a folder; give the name of a file"):
        report.to_html(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_says_how_to_install_what_is_missing(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_plotly(name: str, *rest: object) -> object:
        if name.startswith("plotly"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_plotly)
    with pytest.raises(ReportError, match=r"pip install 'pathlen\[html\]'"):
        layer_of([1]).to_html(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_the_page_and_prints_the_report(tmp_path):
    source = tmp_path / "model.py"
    source.write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()), torch.ones(1, 3)\n"
    )
    page = tmp_path / "page.html"
    arguments = ["measure", f"{source}:make", "--html", str(page), "--json"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert json.loads(done.stdout)["average_path_length"] == 1
    assert f"<title>{source}:make</title>" in page.read_text(encoding="utf-8")
    arguments[3] = str(tmp_path / "nowhere" / "page.html")
    refused = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert refused.exit_code == 2
    assert "no folder" in refused.stderr
