"""benchmarks/studies_page.py: the rows of a gate, and what of the page is left as it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

from pathlen.training.study import load_study
from pathlen.training.study.finished import Finished, write_finished
from pathlen.training.study.plan import plan_study

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "studies_page.py"


@pytest.fixture(scope="module")
def page():
    """The script as a module; it changes the path that modules are looked for in."""
    before = [*sys.path]
    spec = importlib.util.spec_from_file_location("studies_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture
def gate(tmp_path):
    """The file of the first gate, alone in a folder, and a function that finishes runs of it."""
    path = tmp_path / "gate.yaml"
    study = load_study("gates_plain20_16")
    path.write_text(yaml.safe_dump(study.model_dump(mode="json")))
    members = {member.labels["case"]: member for member in plan_study(load_study(path)).members}

    def finish(**accuracies):
        runs = []
        for name, accuracy in accuracies.items():
            member = members[name.replace("_napl_", ", NAPL ").replace("_", " ")]
            napl = 20.0 if name == "dense" else 2.0
            row = {"epoch": 1, "phase": "train", "step": 1, "test_accuracy": accuracy, "napl": napl}
            row["seconds"] = 1.0
            facts = {"metric": "accuracy", "seconds": 1.0}
            runs.append(Finished(member.key, member.labels, 0, "", 1.0, facts, [row]))
        write_finished(path.with_suffix(".jsonl"), runs)
        return path

    return finish


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_gate_that_has_not_run_is_one_row(page):
    assert [cells(row) for row in page.gate("gates_plain20")] == [
        ["cifar10, 32 x 32", "plain20, width 16", "30", "", *["to run"] * 3, "", ""]
    ]


@pytest.mark.parametrize(
    ("random", "layers", "expected"),
    [
        (0.70, None, ["70.0 %", "to run", "3.5 points", "so far"]),
        (0.70, 0.60, ["70.0 %", "60.0 %", "3.5 points", "yes"]),
        (0.70, 0.72, ["70.0 %", "72.0 %", "1.5 points", "no"]),
        (0.74, None, ["74.0 %", "to run", "-0.5 points", "no"]),
        (None, None, ["to run", "to run", "", ""]),
    ],
)
def test_the_dense_network_has_to_be_ahead_of_the_better_one(page, gate, random, layers, expected):
    found = {"dense": 0.735, "random_units_napl_2": random, "layers_napl_2": layers}
    path = gate(**{name: value for name, value in found.items() if value is not None})
    rows = [cells(row) for row in page.gate(path)]
    setting = ["cifar10, 16 x 16", "plain20, width 16", "14"]
    assert rows == [
        [*setting, "5 (25%)", "73.5 %", "to run", "to run", "", ""],
        [*setting, "2 (10%)", "73.5 %", *expected],
        [*setting, "1 (5%)", "73.5 %", "to run", "to run", "", ""],
    ]


def test_parts_without_results_stay(page):
    text = "\n### one\n\nfirst\n\n### two\n\nsecond\n"
    parts = page.parts_of(text)
    assert parts == {"one": "### one\n\nfirst\n", "two": "### two\n\nsecond\n"}
    whole = f"before\n<!-- a: begin -->\n{text}\n<!-- a: end -->\nafter\n"
    assert page.replaced(whole, "a", "\n" + "\n".join(parts.values())) == whole
