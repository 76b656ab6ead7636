"""Figures: pictures against kept ones, and what is drawn against the numbers of the report."""

from __future__ import annotations

import itertools
import json
import sys

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.collections import PolyCollection
from torch import nn

import pathlen
from pathlen import PathGraph, figures
from pathlen.errors import DataError, GraphError, ReportError
from pathlen.figures.bypasses import bypasses
from pathlen.figures.core_network import strips_of
from pathlen.figures.layer_axis import label_layers
from pathlen.graph.parts import Kind
from pathlen.report.channels import ACTIVE, DEAD, LINEAR
from pathlen.report.layer_graph import LayerEdge, LayerGraph, LayerNode
from tests.figure_cases import (
    BASELINES,
    CASES,
    TOLERANCE,
    Block,
    case_runs,
    difference,
    drawn_labels,
    many_blocks,
    perceptron,
    picture,
    pruned_perceptron,
    residual_network,
    tradeoff_runs,
    training_rows,
    trend_runs,
)
from tests.path_graphs import random_graphs

PLOTS_OF_REPORTS = [
    figures.plot_core_network,
    figures.plot_path_lengths,
    figures.plot_contributions,
    figures.plot_width_profile,
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("name", CASES)
def test_the_picture_is_the_one_that_was_looked_at(name, tmp_path):
    drawn = picture(CASES[name]())
    (tmp_path / f"{name}.png").write_bytes(drawn)
    apart = difference(drawn, (BASELINES / f"{name}.png").read_bytes())
    assert apart <= TOLERANCE, f"{apart:.1f} apart: compare {tmp_path / name}.png with the kept one"


def test_every_kept_picture_belongs_to_a_case():
    assert {path.stem for path in BASELINES.glob("*.png")} == set(CASES)


def test_other_data_make_another_picture():
    """The tolerance is below what one more linear channel, or a moved line, changes."""
    report = perceptron()
    (first, *_) = report.activation_layers
    activity = report.graph.activity.copy()
    activity[np.flatnonzero(activity)[0]] = 0
    changed = pathlen.measure(report.graph.with_activity(activity))
    for plot in PLOTS_OF_REPORTS:
        assert difference(picture(plot(report)), picture(plot(changed))) > TOLERANCE
    rows = training_rows()
    moved = [{**row, "napl": 0.9 * row["napl"]} for row in rows]
    pictures = [picture(figures.plot_training(some)) for some in (rows, moved)]
    assert difference(*pictures) > TOLERANCE
    assert first.active == 6


# What holds for all of them


@pytest.mark.parametrize("plot", PLOTS_OF_REPORTS)
def test_settings_of_matplotlib_stay_and_axes_are_returned(plot):
    before = dict(matplotlib.rcParams)
    made = plot(residual_network())
    assert made.figure.get_size_inches()[0] == figures.COLUMN_WIDTH
    _, axes = pyplot.subplots(1, 2)
    assert plot(residual_network(), ax=axes[1]) is axes[1]
    assert not axes[0].has_data()
    figures.plot_training(training_rows())
    figures.plot_tradeoff(tradeoff_runs())
    figures.plot_trend(trend_runs(), x="classes", y=["napl", "test_accuracy"])
    figures.plot_cases(case_runs())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("plot", PLOTS_OF_REPORTS)
def test_fraction_reports_give_the_same_picture(plot):
    report = perceptron()
    exact = pathlen.measure(report.graph, exact=True)
    assert difference(picture(plot(report)), picture(plot(exact))) == 0


def test_saved_files_embed_truetype_fonts_and_are_the_same_each_time(tmp_path):
    for ending in ("pdf", "svg"):
        contents = []
        for turn in range(2):
            path = tmp_path / f"{turn}.{ending}"
            figures.save(figures.plot_path_lengths(perceptron()), path)
            contents.append(path.read_bytes())
        assert contents[0] == contents[1]
        if ending == "pdf":
            assert b"/CIDFontType2" in contents[0]
            assert b"/FontFile2" in contents[0]
            assert b"/Type3" not in contents[0]
    figure = figures.plot_path_lengths(perceptron()).figure
    figures.save(figure, tmp_path / "figure.png", dpi=50)
    assert matplotlib.image.imread(tmp_path / "figure.png").shape[1] == round(50 * 3.3)


def test_without_matplotlib_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportError, match=r"pip install 'pathlen\[figures\]'"):
        figures.plot_width_profile(perceptron())


def test_networks_without_activation_layers_are_refused():
    report = pathlen.measure(nn.Linear(2, 3), torch.zeros(1, 2))
    for plot in (
        figures.plot_core_network,
        figures.plot_contributions,
        figures.plot_width_profile,
    ):
        with pytest.raises(GraphError, match="no activation layers"):
            plot(report)


# Labels of layers


NAMES = {
    "blocks": lambda count: [f"encoder.blocks.{place}.mlp.act" for place in range(count)],
    "sequential": lambda count: [str(2 * place + 1) for place in range(count)],
    "stages": lambda count: [
        f"stage{1 + 4 * place // count}.{place}.relu" for place in range(count)
    ],
    "long": lambda count: [f"{'very_long_module_name' * 3}_{place}.act" for place in range(count)],
    "one after many": lambda count: [*(f"features.{place}" for place in range(count - 1)), "head"],
}


@pytest.mark.parametrize("count", [1, 2, 5, 17, 49, 500])
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("width", [1.6, 3.3])
def test_labels_of_layers_never_overlap(kind, count, width):
    _, ax = pyplot.subplots(figsize=(width, 1.5), layout="constrained")
    ax.tick_params(labelsize=7)
    label_layers(ax, NAMES[kind](count))
    boxes = drawn_labels(ax)
    assert boxes
    for left, right in itertools.pairwise(boxes):
        assert left.x1 <= right.x0


def test_labels_are_names_modules_or_numbers():
    def labels(names):
        _, ax = pyplot.subplots(figsize=(3.3, 1.5))
        label_layers(ax, names)
        ax.figure.canvas.draw()
        return [label.get_text() for label in ax.get_xticklabels()], ax.get_xlabel()

    assert labels(["net.0.act", "net.1.act", "net.2.act"]) == (
        ["0.act", "1.act", "2.act"],
        "layer of net",
    )
    assert labels(NAMES["stages"](40)) == (["stage1", "stage2", "stage3", "stage4"], "layer")
    numbers, title = labels(NAMES["blocks"](200))
    assert title == "layer"
    assert all(text.isdigit() for text in numbers)


# The core of a network


def cells(ax):
    """Boxes (left, bottom, width, height) by label."""
    return {
        collection.get_label(): [path.get_extents().bounds for path in collection.get_paths()]
        for collection in ax.collections
        if isinstance(collection, PolyCollection)
    }


def test_every_channel_of_a_narrow_network_is_a_cell():
    report = perceptron()
    drawn = cells(figures.plot_core_network(report))
    assert len(drawn["active"]) == report.num_active == sum(report.width_profile)
    assert len(drawn["linear"]) == 12 + 16 + 5 - report.num_active
    assert "dead" not in drawn
    for number, row in enumerate(report.activation_layers, 1):
        mine = [box for box in drawn["active"] if abs(box[0] + box[2] / 2 - number) < 1e-9]
        assert len(mine) == row.active
        # active channels are in the middle: as far below as above, give or take one
        assert abs(sum(box[1] + box[3] / 2 for box in mine)) <= row.active / 2


@pytest.mark.parametrize("order", ["core", "channels"])
def test_strips_of_a_wide_network_are_as_tall_as_they_have_channels(order):
    report = residual_network()
    drawn = cells(figures.plot_core_network(report, order=order))
    height = dict.fromkeys(drawn, 0.0)
    for label, boxes in drawn.items():
        height[label] = sum(box[3] for box in boxes)
    units = sum(row.units for row in report.activation_layers)
    assert height == pytest.approx(
        {"active": report.num_active, "linear": units - report.num_active}
    )


def test_channels_are_drawn_in_their_order_with_dead_ones_in_place():
    report = pruned_perceptron()
    first, second = strips_of(report, "channels")
    alive = [state for state in first.states if state != DEAD]
    assert [place for place, state in enumerate(first.states) if state == DEAD] == [0, 3, 6]
    assert [state == ACTIVE for state in alive] == [
        value > 0 for value in report.graph.activity[report.graph.units_of("1")]
    ]
    assert [place for place, state in enumerate(second.states) if state == DEAD] == [*range(20, 30)]
    core, _ = strips_of(report)
    assert sorted(core.states) == sorted(first.states)
    ranks = [core.states[place] for place in range(len(core.states) // 2 + 1)]
    assert ranks == sorted(ranks, reverse=True)  # dead, linear, active towards the middle
    assert {ACTIVE, LINEAR, DEAD} == set(core.states)


def test_unknown_orders_and_scales_are_refused():
    for wrong in ({"order": "size"}, {"scale": "log"}):
        with pytest.raises(GraphError, match="use order='core' or 'channels'"):
            figures.plot_core_network(perceptron(), **wrong)


# Skip connections


def ways_around(graph: LayerGraph, shown: set[str]) -> list[tuple[int, int]]:
    """The definition, over all ways from the inputs listed one by one."""
    before = {node: [] for node in range(len(graph.nodes))}
    for edge in graph.edges:
        before[edge.target].append(edge.source)
    numbers = itertools.count(1)
    number = {n: next(numbers) if layer.name in shown else 0 for n, layer in enumerate(graph.nodes)}

    def ways(node):
        return [(*way, node) for other in before[node] for way in ways(other)] or [(node,)]

    found = set()
    for node in before:
        # the last number on any way to each of what feeds the node, and a way that has it
        latest = {
            other: max(max(number[n] for n in w) for w in ways(other)) for other in before[node]
        }
        for other, first in latest.items():
            last = max(latest.values())
            far = min((o for o in before[node] if latest[o] == last), key=before[node].index)
            feeds = first == 0 or any(number[n] == first for way in ways(far) for n in way)
            if first < last and feeds and other != far:
                found.add((first, last))
    return sorted(found)


@settings(deadline=None, max_examples=100)
@given(case=random_graphs(), chosen=st.lists(st.booleans(), min_size=12, max_size=12))
def test_bypasses_are_those_of_all_ways(case, chosen):
    graph = pathlen.layer_graph(case.build())
    shown = {
        layer.name
        for layer, pick in zip(graph.nodes, itertools.cycle(chosen))
        if pick and layer.kind == Kind.UNIT
    }
    assert bypasses(graph, shown) == ways_around(graph, shown)


def arcs_of(model, *inputs):
    report = pathlen.measure(model.eval(), inputs)
    return bypasses(pathlen.layer_graph(report), {row.name for row in report.activation_layers})


def test_skips_of_networks_known_by_hand():
    assert arcs_of(nn.Sequential(Block(3, 4), Block(3, 4)), torch.zeros(1, 3)) == [(0, 1), (1, 2)]

    class Projected(Block):
        def __init__(self):
            super().__init__(3, 4)
            self.first, self.shortcut = nn.ReLU(), nn.Linear(3, 3)

        def forward(self, x):
            x = self.first(x)
            return self.shortcut(x) + self.out(self.act(self.into(x)))

    assert arcs_of(Projected(), torch.zeros(1, 3)) == [(1, 2)]

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.short = nn.ReLU(), nn.Sequential(nn.Linear(3, 3), nn.ReLU())
            self.long = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU())

        def forward(self, x):
            x = self.stem(x)
            return torch.cat([self.short(x), self.long(x)], dim=1)

    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.branches, self.out = Branches(), nn.Linear(6, 2)

        def forward(self, x):
            return self.out(self.branches(x))

    assert arcs_of(Read(), torch.zeros(1, 3)) == []


def test_skips_are_drawn_above_the_strips_or_counted():
    ax = figures.plot_core_network(many_blocks(20))
    (lines,) = [c for c in ax.collections if c.get_label() == "skip"]
    ends = [[curve[0, 0], curve[-1, 0]] for curve in lines.get_segments()]
    assert np.allclose(ends, [[place + 0.5, place + 1.5] for place in range(20)])
    strips = cells(ax)
    top = max(box[1] + box[3] for boxes in strips.values() for box in boxes)
    assert min(curve[:, 1].min() for curve in lines.get_segments()) > top
    assert not any(
        c.get_label() == "skip"
        for c in figures.plot_core_network(many_blocks(20), skips=False).collections
    )
    nodes = tuple(LayerNode(str(n), "relu", Kind.UNIT, 1, 1, 0, True, {}) for n in range(40))
    every = tuple(LayerEdge(a, b, 1, {}, b - a > 1) for b in range(40) for a in range(b))
    assert len(bypasses(LayerGraph(nodes, every), {str(n) for n in range(40)})) > 400


# Lengths, contributions, widths


def test_path_lengths_are_the_distribution():
    report = residual_network()
    ax = figures.plot_path_lengths(report)
    lines = [patch for patch in ax.patches if not patch.get_fill()]
    for weighting, patch in zip(("uniform", "normalized"), lines, strict=True):
        shares = report.path_length_distribution(weighting)
        assert patch.get_data().values == pytest.approx(shares)
        assert patch.get_data().edges == pytest.approx(np.arange(len(shares) + 1) - 0.5)
    marks = [line.get_xdata()[0] for line in ax.lines]
    assert marks == pytest.approx(
        [report.average_path_length, report.normalized_average_path_length]
    )
    low, high = ax.get_xlim()
    assert low < min(marks)
    assert high > max(marks)
    by_magnitude = figures.plot_path_lengths(pruned_perceptron(), weightings=["magnitude"])
    assert len(by_magnitude.lines) == 1


def test_contributions_are_those_of_the_report():
    report = residual_network()
    ax = figures.plot_contributions(report)
    rows = report.activation_layers
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(
        [row.normalized_contribution for row in rows]
    )
    (dashes,) = ax.collections
    assert [dash[0, 1] for dash in dashes.get_segments()] == pytest.approx(
        [row.contribution for row in rows]
    )
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [
        f"NAPL = {report.normalized_average_path_length:.4g}",
        f"APL = {report.average_path_length:.4g}",
    ]
    many = many_blocks(100)
    stairs = figures.plot_contributions(many).patches[-1]
    assert stairs.get_data().values == pytest.approx(
        [row.contribution for row in many.layers if row.activation]
    )
    with pytest.raises(GraphError, match="no weighting"):
        figures.plot_contributions(report, weightings=[])


def test_widths_are_active_linear_and_dead_units():
    report = pruned_perceptron()
    ax = figures.plot_width_profile(report)
    bars = {
        container.get_label(): [bar.get_height() for bar in container]
        for container in ax.containers
    }
    assert bars == {
        "active": [3, 15],
        "linear": [3, 15],
        "dead": [3, 10],
    }
    (line,) = ax.lines
    assert line.get_ydata()[0] == report.effective_width


# Training


def test_training_draws_the_rows(tmp_path):
    rows = training_rows()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import pandas

    for run in (rows, tmp_path, str(tmp_path / "metrics.jsonl"), pandas.DataFrame(rows)):
        ax = figures.plot_training(run)
        quality, active = ax.lines
        (depth,) = ax.figure.axes[-1].lines
        assert list(quality.get_xdata()) == [row["epoch"] for row in rows]
        assert quality.get_ydata() == pytest.approx([100 * row["test_accuracy"] for row in rows])
        assert active.get_ydata() == pytest.approx([row["active_units"] / 6.88 for row in rows])
        assert depth.get_ydata() == pytest.approx([row["napl"] for row in rows])
        assert [text.get_text() for text in ax.texts] == ["linearize", "train", "finetune"]
        shaded = [(span.get_x(), span.get_x() + span.get_width()) for span in ax.patches]
        assert shaded == [(0.5, 8.5), (8.5, 18.5), (18.5, 21.5)]


def test_training_without_phases_and_with_gaps():
    rows = [
        {"epoch": 1, "bleu": None, "active_units": 4, "napl": 2.0},
        {"epoch": 2, "bleu": 31.5, "active_units": 2, "napl": 1.0},
    ]
    ax = figures.plot_training(rows)
    # a line goes over epochs that were not evaluated
    assert (list(ax.lines[0].get_xdata()), list(ax.lines[0].get_ydata())) == ([2], [31.5])
    assert not ax.texts
    assert not ax.patches


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        ([3], "is no mapping"),
        ([{"epoch": 1, "loss": 1.0}], "name the metric, one of 'epoch', 'loss'"),
        ([{"epoch": 1, "accuracy": 0.5, "napl": 1.0}], "no row has 'active_units'"),
        (
            [{"epoch": 1, "accuracy": 50.0, "napl": 1.0, "active_units": 3}],
            "must lie between 0 and 1; there is 50.0",
        ),
        (
            [{"epoch": 1, "accuracy": "good", "napl": 1.0, "active_units": 3}],
            "'accuracy' should be a number, not 'good'",
        ),
    ],
)
def test_rows_that_cannot_be_drawn(rows, message):
    with pytest.raises(DataError, match=message):
        figures.plot_training(rows)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*metrics.jsonl"):
        figures.plot_training(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\nepoch 2\n')
    with pytest.raises(DataError, match="line 2: this is no JSON"):
        figures.plot_training(tmp_path)


# The trade-off


def test_the_line_of_a_series_goes_through_means_with_bars_to_the_extremes():
    ax = figures.plot_tradeoff(tradeoff_runs())
    containers = {c.lines[0].get_label(): c for c in ax.containers}
    assert list(containers) == ["late", "early"]
    runs = [run for run in tradeoff_runs() if run["series"] == "late"]
    groups = [[run for run in runs if run["setting"] == omega] for omega in (2.0, 1.0, 0.5, 0.1)]
    line, _, (across, up) = containers["late"].lines
    assert line.get_xdata() == pytest.approx([np.mean([r["napl"] for r in g]) for g in groups])
    assert line.get_ydata() == pytest.approx(
        [100 * np.mean([r["accuracy"] for r in g]) for g in groups]
    )
    for segment, group in zip(across.get_segments(), groups, strict=True):
        assert sorted(segment[:, 0]) == pytest.approx(
            [min(r["napl"] for r in group), max(r["napl"] for r in group)]
        )
    for segment, group in zip(up.get_segments(), groups, strict=True):
        assert sorted(segment[:, 1]) == pytest.approx(
            [100 * min(r["accuracy"] for r in group), 100 * max(r["accuracy"] for r in group)]
        )
    pale = [line for line in ax.lines if line.get_alpha() == 0.3]
    assert sum(len(line.get_xdata()) for line in pale) == len(tradeoff_runs())


def test_runs_as_pairs_and_as_folders(tmp_path):
    ax = figures.plot_tradeoff({"a": [(2.0, 30.0), (1.0, 20.0)], "b": [(3.0, 10.0)]}, metric="BLEU")
    assert ax.get_ylabel() == "BLEU"
    assert list(ax.containers[0].lines[0].get_xdata()) == [1.0, 2.0]
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        lines = [
            {"epoch": epoch, "napl": 10.0 / number / epoch, "test_accuracy": 0.5 + 0.1 * epoch}
            for epoch in (1, 2)
        ]
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / str(number) / "metrics.jsonl").write_text(text)
    ax = figures.plot_tradeoff([tmp_path / "1", str(tmp_path / "2")])
    assert ax.get_legend() is None
    assert ax.get_ylabel() == "test accuracy (%)"
    assert list(ax.lines[0].get_xdata()) == [2.5, 5.0]
    assert ax.lines[0].get_ydata() == pytest.approx([70, 70])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no runs to draw"),
        ([(1.0, 2.0, 3.0)], "a pair of depth and metric"),
        ([(1.0, float("nan"))], "no row has 'metric'"),
        ([(float("inf"), 1.0)], "must be finite"),
        ([{"accuracy": 0.5}], "no row has 'napl'"),
        ([{"accuracy": 0.5, "napl": 1}, {"bleu": 5, "napl": 1}], "have different metrics"),
    ],
)
def test_runs_that_cannot_be_drawn(runs, message):
    with pytest.raises(DataError, match=message):
        figures.plot_tradeoff(runs)


def test_graphs_that_are_no_networks_are_drawn_too():
    graph = PathGraph.from_edges([(0, 1), (1, 2), (2, 3), (0, 3)], activity=[0, 1, 1, 0])
    report = pathlen.measure(graph)
    for plot in PLOTS_OF_REPORTS:
        plot(report).figure.canvas.draw()
