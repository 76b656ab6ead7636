"""The HTML report in a browser: it draws what was measured, folds, finds, and stays quick."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import pathlen
from pathlen.training.resnet import CifarResNet
from tests.browser import Page, chromium

HOSTILE = "</script><img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def resnet() -> pathlen.Report:
    """A residual network of 20 layers, with half of its channels linear."""
    import torch

    graph = pathlen.trace(CifarResNet(depth=20).eval(), torch.zeros(1, 3, 32, 32))
    activity = graph.activity.copy()
    activity[np.flatnonzero(activity)[::2]] = 0
    return pathlen.measure(graph.with_activity(activity))


@pytest.fixture
def page(driver, resnet, tmp_path) -> Page:
    resnet.to_html(tmp_path / "page.html", title="ResNet-20")
    return Page(driver, tmp_path / "page.html")


def blocks(count: int) -> pathlen.PathGraph:
    """A chain of residual blocks of one unit each, in four layers: 4 * count layers of modules."""
    edges, names = [(0, 1)], ["x"]
    for block in range(count):
        first = 1 + 4 * block
        edges += [*itertools.pairwise(range(first, first + 5)), (first, first + 3)]
        names += [f"stage{block // 125}.{block}.{name}" for name in ("norm", "up", "act", "add")]
    return pathlen.PathGraph.from_edges(edges, layers=[*names, "output"])


def test_loads_in_silence_and_asks_the_network_for_nothing(page):
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    assert page.said() == []


def test_shows_the_headline_numbers_and_the_status(page, resnet):
    assert page.text("#title") == "ResNet-20"
    shown = page.text("#numbers")
    assert f"{resnet.normalized_average_path_length:.6g}" in shown
    assert f"{resnet.average_path_length:.6g}" in shown
    assert f"{resnet.num_active:,}" in shown
    assert page.text(".badge") == "exact"
    assert resnet.tracer in page.text("#trace")


def test_draws_a_bar_for_each_length_and_layer(page, resnet):
    bars = "return document.querySelectorAll(arguments[0] + ' .trace .point path').length"
    lengths = sum(
        (resnet.path_length_distribution("uniform") >= 1e-12)
        | (resnet.path_length_distribution("normalized") >= 1e-12)
    )
    assert page.run(bars, "#lengths") == 2 * lengths
    assert page.run(bars, "#contributions") == 2 * len(resnet.activation_layers)
    # Active and linear channels, one above the other.
    assert page.run(bars, "#widths") == 2 * len(resnet.activation_layers)


def test_the_data_of_the_charts_is_that_of_the_report(page, resnet):
    for place, weighting in enumerate(("uniform", "normalized")):
        script = f"return Array.from(document.querySelector('#%s').data[{place}].%s)"
        lengths = page.run(script % ("lengths", "x"))
        shares = page.run(script % ("lengths", "y"))
        assert np.dot(lengths, shares) == pytest.approx(resnet.average(weighting), abs=1e-4)
        added = page.run(script % ("contributions", "y"))
        assert sum(added) == pytest.approx(resnet.average(weighting), rel=1e-4)
    widths = page.run("return Array.from(document.querySelector('#widths').data[0].y)")
    assert widths == list(resnet.width_profile)


def test_everything_unfolded_shows_each_layer_and_each_skip_once(page, resnet):
    page.press("#unfold")
    layers = pathlen.layer_graph(resnet)
    assert sorted(page.run("return pathlen.view.drawing.boxes.map((box) => box.item.path)")) == (
        sorted(node.name for node in layers.nodes)
    )
    skips = "return pathlen.view.drawing.edges.filter((drawn) => drawn.edge.skip).length"
    assert page.run(skips) == sum(edge.skip for edge in layers.edges) > 0
    assert page.run("return pathlen.view.drawing.edges.length") == len(layers.edges)


def test_no_two_boxes_overlap_and_no_edge_leads_up(page):
    page.press("#unfold")
    boxes = page.run(
        "return pathlen.view.drawing.boxes.map((box) => [box.x, box.y, box.height, box.rank])"
    )
    width = page.run("return pathlen.SIZE.width")
    for (x, y, height, _), (other_x, other_y, other_height, _) in itertools.combinations(boxes, 2):
        apart = abs(x - other_x) >= width or y + height <= other_y or other_y + other_height <= y
        assert apart
    ends = page.run(
        "return pathlen.view.drawing.edges.map((drawn) => [drawn.source.rank, drawn.target.rank])"
    )
    assert all(source < target for source, target in ends)


def test_folds_and_unfolds_by_module(page):
    page.press("#fold")
    folded = page.boxes()
    assert "stage1" in folded
    page.press_item("stage1")
    assert page.boxes() == [
        label for name in folded for label in (["0", "1", "2"] if name == "stage1" else [name])
    ]
    page.press_item("0")
    assert {"conv1", "activation1", "conv2", "add", "activation2"} <= set(page.boxes())
    page.press_item("stage1")
    assert page.boxes() == folded


def test_a_folded_module_adds_up_its_layers(page, resnet):
    page.press("#fold")
    inside = [row for row in resnet.layers if row.name.startswith("stage2.")]
    label = page.run(
        "return [...document.querySelectorAll('#graph .group')]"
        ".map((node) => node.getAttribute('aria-label')).find((text) => text.startsWith('stage2'))"
    )
    active = sum(row.active for row in inside)
    units = sum(row.units for row in inside if row.activation)
    added = sum(row.normalized_contribution for row in inside)
    assert f"{len(inside)} layers" in label
    assert f"{active} active, {units - active} linear" in label
    assert f"adds {added:.4f}".rstrip("0").rstrip(".") in label


def test_search_finds_layers_inside_of_folded_modules(page):
    page.press("#fold")
    page.one("#search").send_keys("STAGE3.1.act")
    assert page.text("#found") == "2 layers"
    assert len(page.all("#table tbody tr")) == 2
    assert "activation2" not in page.boxes()
    page.one("#search").send_keys("\ue007")  # Enter
    assert page.text("#found") == "1 of 2 layers"
    chosen = page.run("return pathlen.view.chosen.path")
    assert chosen == "stage3.1.activation1"
    (drawn,) = page.all("#graph .node.chosen")
    assert chosen in drawn.get_attribute("aria-label")
    inside = page.run(
        "const a = arguments[0].getBoundingClientRect();"
        "const b = document.querySelector('#graph').getBoundingClientRect();"
        "return a.top >= b.top && a.bottom <= b.bottom",
        drawn,
    )
    assert inside
    page.one("#search").send_keys("nowhere")
    assert page.text("#found") == "nothing found"


def test_everything_can_be_done_with_the_keyboard(page):
    page.press("#fold")
    page.run("document.querySelector('#graph [tabindex=\"0\"]').focus()")
    reached = "return document.activeElement.getAttribute('aria-label')"
    assert page.run(reached).startswith("x")
    down, right, left = "\ue015", "\ue014", "\ue012"
    while not page.run(reached).startswith("stage1"):
        page.keys(down)
    page.keys(right)
    assert page.run(reached).startswith("stage1.0,")
    page.keys(right)
    assert page.run(reached).startswith("stage1.0.conv1,")
    page.keys(left)
    assert page.run(reached).startswith("stage1.0,")
    page.keys(left)
    assert page.run(reached).startswith("stage1,")
    page.keys("/")
    assert page.run("return document.activeElement.id") == "search"


def test_light_and_dark_by_the_system_and_by_the_switch(page):
    ground = "return getComputedStyle(document.body).backgroundColor"
    colour = "return document.querySelector('#lengths').data[0].marker.color"

    def colours():
        return page.run(ground), page.run(colour)

    page.ask_for("light")
    page.until(lambda: page.run(ground) == "rgb(255, 255, 255)")
    light = colours()
    page.ask_for("dark")
    page.until(lambda: all(now != before for now, before in zip(colours(), light, strict=True)))
    dark = colours()
    page.press("#theme")  # the system says dark, the switch light
    page.until(lambda: colours() == light)
    page.press("#theme")
    page.ask_for("light")  # and now the other way around
    page.until(lambda: colours() == dark)
    page.press("#theme")


def test_a_drag_moves_the_graph_and_is_no_click(page):
    from selenium.webdriver import ActionChains

    page.press("#fold")
    page.press("#level")
    page.run("document.querySelector('#graph-heading').scrollIntoView()")
    shown = page.boxes()
    where = "return document.querySelector('#graph').scrollTop"
    (group, *_) = page.all("#graph .group")
    actions = ActionChains(page.driver).move_to_element(group).click_and_hold()
    actions.move_by_offset(0, -150).release().perform()
    assert page.run(where) == 150
    assert page.boxes() == shown
    ActionChains(page.driver).move_to_element(page.all("#graph .group")[0]).click().perform()
    assert page.boxes() != shown


def test_zooming_holds_what_is_below_the_pointer(page):
    page.press("#unfold")
    seen = page.run(
        """
        const graph = document.querySelector("#graph");
        graph.scrollTop = 2000;
        const frame = graph.getBoundingClientRect();
        const at = { clientX: frame.left + frame.width / 2, clientY: frame.top + 300 };
        const y = () => {
          const top = pathlen.view.drawing.extent.top;
          return (graph.scrollTop + 300 - 24) / pathlen.view.scale + top;
        };
        const before = [pathlen.view.scale, y()];
        const turn = { deltaY: 200, ctrlKey: true, bubbles: true, cancelable: true, ...at };
        const prevented = !graph.dispatchEvent(new WheelEvent("wheel", turn));
        return [before, [pathlen.view.scale, y()], prevented];
        """
    )
    (scale, y), (other_scale, other_y), prevented = seen
    assert prevented  # the browser would zoom the page as well
    assert other_scale == pytest.approx(scale * np.exp(-0.5))
    assert other_y == pytest.approx(y, abs=2)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible_by_the_rules_of_axe(page, theme):
    from axe_core_python.selenium import Axe

    page.run("document.documentElement.dataset.theme = arguments[0]", theme)
    page.press("#unfold")
    page.one("#search").send_keys("conv")
    kinds = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    found = Axe().run(page.driver, options={"runOnly": kinds})
    assert len(found["passes"]) > 30  # it has looked at the page
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []


def test_the_weighting_can_be_chosen(page, resnet):
    page.press("#fold")
    page.run(
        "const select = document.querySelector('#weighting'); select.value = 'uniform';"
        "select.dispatchEvent(new Event('change'))"
    )
    added = sum(row.contribution for row in resnet.layers if row.name.startswith("stage1."))
    assert f"+{added:.4f}".rstrip("0").rstrip(".") in page.text("#graph")


def tangle(count: int) -> pathlen.PathGraph:
    """A chain of units that are layers of no module, with twice as many skips of any length."""
    ends = np.random.default_rng(0).integers(count, size=(2 * count, 2))
    skips = np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1)
    chain = np.column_stack([np.arange(count - 1), np.arange(1, count)])
    names = [f"act{place}" for place in range(count)]
    return pathlen.PathGraph.from_edges(np.concatenate([chain, skips]), layers=names)


@pytest.mark.parametrize(("make", "size"), [(blocks, 1250), (tangle, 5000)])
def test_a_graph_of_5000_layers_answers_within_a_second(driver, tmp_path, make, size):
    report = pathlen.measure(make(size))
    layers = len(report.layers)
    assert layers >= 5000
    report.to_html(tmp_path / "large.html")
    page = Page(driver, tmp_path / "large.html")
    assert len(page.boxes()) <= 100  # it starts folded
    seconds = page.run(
        """
        const view = pathlen.view;
        const input = document.querySelector("#search");
        const seconds = {};
        const time = (name, act) => {
          // The best of three, for the machine may be busy with other things.
          seconds[name] = Infinity;
          for (let turn = 0; turn < 3; turn++) {
            const start = performance.now();
            act();
            document.querySelector("#graph").getBoundingClientRect(); // what it draws is laid out
            seconds[name] = Math.min(seconds[name], (performance.now() - start) / 1000);
          }
        };
        time("search", () => {
          input.value = "act";
          input.dispatchEvent(new Event("input"));
        });
        time("go to the last", () => view.step(-1));
        time("unfold all", () => document.querySelector("#unfold").click());
        seconds.shown = view.drawing.boxes.length;
        seconds.elements = document.querySelectorAll("#graph *").length;
        time("fold one", () => view.setOpen(view.leaves[4000].parent, false));
        time("fold all", () => document.querySelector("#fold").click());
        return seconds;
        """
    )
    assert seconds.pop("shown") == layers
    assert seconds.pop("elements") < 3000  # only what is near the window is in the document
    assert max(seconds.values()) < 1, seconds
    found = sum("act" in row.name for row in report.layers)
    assert page.text("#found") == f"{found:,} layers"
    assert page.said() == []


def test_a_click_in_a_chart_shows_the_layer(page, resnet):
    page.press("#fold")
    page.run("document.querySelector('#widths').emit('plotly_click', {points: [{pointIndex: 5}]})")
    assert page.run("return pathlen.view.chosen.path") == resnet.activation_layers[5].name


def test_the_table_is_sorted_by_a_click(page, resnet):
    page.all("#table th button")[-1].click()
    first = page.one("#table tbody td").text
    most = max(row.normalized_contribution for row in resnet.layers)
    assert first == next(
        row.name for row in resnet.layers if row.normalized_contribution == pytest.approx(most)
    )


def test_names_that_are_html_are_harmless(driver, tmp_path):
    names = ["x", f"{HOSTILE}.{HOSTILE}", f"{HOSTILE}.<b>bold</b>", "</title>&amp;", "y"]
    graph = pathlen.PathGraph.from_edges([*itertools.pairwise(range(5)), (1, 3)], layers=names)
    pathlen.measure(graph).to_html(tmp_path / "hostile.html", title=HOSTILE)
    page = Page(driver, tmp_path / "hostile.html")
    page.press("#unfold")
    page.one("#search").send_keys("onerror")
    page.run("pathlen.view.step(1)")
    assert page.text("#found") == "2 layers"
    assert page.text("#title") == HOSTILE
    assert page.driver.title == HOSTILE
    assert page.run("return pathlen.view.data.layers.name") == names
    assert "</title>&amp;" in page.text("#contributions")
    assert page.run("return window.hacked === undefined")
    assert page.all("img") == []
    assert page.said() == []


def test_a_module_that_is_entered_twice(driver, tmp_path):
    names = ["x", "a.1", "b.1", "a.2", "b.2", "y"]
    graph = pathlen.PathGraph.from_edges(list(itertools.pairwise(range(6))), layers=names)
    pathlen.measure(graph).to_html(tmp_path / "twice.html")
    page = Page(driver, tmp_path / "twice.html")
    page.press("#fold")
    assert page.boxes() == ["x", "a", "b", "y"]
    back = "return pathlen.view.drawing.edges.filter((drawn) => drawn.edge.back).length"
    assert page.run(back) == 1  # from b back up to a
    page.press("#unfold")
    assert page.run(back) == 0
    assert page.said() == []


def test_a_linear_network_has_a_page_too(driver, tmp_path):
    graph = pathlen.PathGraph.from_edges([(0, 1), (1, 2)], activity=[0, 0, 0])
    pathlen.measure(graph).to_html(tmp_path / "linear.html")
    page = Page(driver, tmp_path / "linear.html")
    assert page.said() == []
    assert page.boxes()
