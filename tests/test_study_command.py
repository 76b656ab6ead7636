"""`pathlen study`: what its commands print."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
import yaml
from click.testing import CliRunner

from pathlen.cli.main import main
from pathlen.training.folder_lock import FolderLock
from pathlen.training.study import make_study
from pathlen.training.study.folder import StudyFolder, new_attempt
from pathlen.training.study.plan import plan_study
from tests.studies import fail, put, settings


def row(epoch, phase, accuracy, napl):
    numbers = {"test_accuracy": accuracy, "napl": napl, "active_units": 4, "seconds": 1.5}
    return {"epoch": epoch, "phase": phase, "step": epoch} | numbers


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A study of two cases, three seeds each: one case is done, of the other one run failed.

    One run is under way.
    """
    monkeypatch.chdir(tmp_path)
    sides = {"better": {"omega": 5.0}, "than": {"omega": 0.1}}
    study = settings(seeds=[0, 1, 2], claim="Stronger is shorter.", verdict=sides)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    home, plan = StudyFolder(tmp_path / "studies" / "small"), plan_study(make_study(study))
    home.take_up(plan)
    for number, one in enumerate(plan.runs[:3]):
        put(home, one, [row(1, "train", 0.9, 2.0), row(2, "linearize", 0.5 + 0.1 * number, 1.0)])
    fail(home, plan.runs[3], "no memory\nat all")
    folder = home.of_run(plan.runs[4].key)
    folder.mkdir()

    def run(*arguments):
        return CliRunner().invoke(main, ["study", *arguments], catch_exceptions=False)

    with FolderLock(folder):
        home.note(plan.runs[4].key, new_attempt(None))
        yield run


def test_status(call):
    result = call("status", "study.yaml")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "3 done, 1 running, 1 pending, 1 failed"
    assert re.fullmatch(r"running: omega=5\.0, seed 1, for \d+ s on \S+", lines[1])
    assert lines[2].startswith("the rest takes about ")
    assert lines[3].startswith("failed: omega=5.0, seed 0 (")
    assert lines[4:] == ["    no memory", "    at all"]
    assert call("status", "studies/small").stdout.splitlines()[0] == lines[0]
    found = json.loads(call("status", "study.yaml", "--json").stdout)
    assert found["counts"] == {"done": 3, "running": 1, "pending": 1, "failed": 1}
    assert found["failed"][0]["error"] == "no memory\nat all"


def test_table(call):
    lines = call("table", "study.yaml").stdout.splitlines()
    assert lines[0] == "Stronger is shorter."
    heads = ["omega", "seeds", "dense accuracy %", "accuracy %", "NAPL", "active units"]
    assert [part.strip() for part in lines[2].split("  ") if part.strip()] == heads
    # 50, 60 and 70 percent have the mean 60 and the deviation 10
    cells = ["0.1", "3", "90.00 ± 0.00", "60.00 ± 10.00", "1.000 ± 0.000", "4.0 ± 0.0"]
    assert [part.strip() for part in lines[3].split("  ") if part.strip()] == cells
    assert lines[4].split() == ["5.0", "0", "of", "3"]
    assert lines[5:7] == ["", "3 runs, 4.5 s of training steps"]
    assert lines[7:] == ["", "there are not yet two seeds with all runs that the verdict needs"]


def test_verdicts_below_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdict = [
        {"better": {"omega": 1.0}, "than": {"omega": 16.0}},
        {"kind": "knee", "along": "omega"},
        {"kind": "steadiness", "along": "omega", "metric": "napl"},
    ]
    grid = {"omega": [1.0, 2.0, 4.0, 8.0, 16.0]}
    study = settings(seeds=[0, 1], grid=grid, verdict=verdict)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    home, plan = StudyFolder(tmp_path / "studies" / "small"), plan_study(make_study(study))
    home.take_up(plan)
    places = {member.key: (member.labels["omega"], member.seed) for member in plan.members}
    for one in plan.runs:
        omega, seed = places[one.key]
        # NAPL 4, 3, 2, 1, 0; accuracy 90 % down to 2, then 10 points less for each 1
        napl = 4.0 - [1.0, 2.0, 4.0, 8.0, 16.0].index(omega)
        accuracy = 0.9 + 0.01 * seed + 0.1 * min(0.0, napl - 2)
        put(home, one, [row(1, "linearize", accuracy, napl)])
    result = CliRunner().invoke(main, ["study", "table", "study.yaml"], catch_exceptions=False)
    # without effect sizes: of equal seeds they are infinite but for rounding
    lines = [re.sub(r"effect size \S+ ", "", line) for line in result.stdout.splitlines()[-5:]]
    lost = lines.pop(3)
    assert re.fullmatch(r"lost before the knee: [+-]0\.0[01] points \[.*\], 2 seeds", lost)
    assert lines == [
        "omega 1.0 against omega 16.0: +20.00 points [+20.00, +20.00], 2 seeds: supported",
        "knee at: 2.00 [2.00, 2.00], 2 seeds: located",
        "steeper below the knee than above it, for each 1 of napl: +10.00 points"
        " [+10.00, +10.00], 2 seeds: supported",
        "change of napl with each doubling of omega: -50.00% [-50.00, -50.00], 2 seeds:"
        " contradicted",
    ]


def test_table_for_programs(call):
    records = json.loads(call("table", "study.yaml", "--json").stdout)
    assert [(one["label_omega"], one["seed"]) for one in records] == [(0.1, 0), (0.1, 1), (0.1, 2)]
    assert [one["test_accuracy"] for one in records] == [0.5, 0.6, 0.7]
    assert {one["dense_test_accuracy"] for one in records} == {0.9}
    table = list(csv.DictReader(io.StringIO(call("table", "study.yaml", "--csv").stdout)))
    assert [float(one["test_accuracy"]) for one in table] == [0.5, 0.6, 0.7]


def test_plot(call, tmp_path):
    result = call("plot", "study.yaml", "-o", "figure.svg")
    assert result.exit_code == 0, result.stderr
    assert "normalized average path length" in (tmp_path / "figure.svg").read_text()
    assert call("plot", "study.yaml").exit_code == 2


@pytest.mark.parametrize("command", ["status", "table", "plot"])
def test_there_is_no_study_yet(command, call, tmp_path):
    more = ["-o", "a.svg"] if command == "plot" else []
    result = call(command, "study.yaml", "--folder", "elsewhere", *more)
    assert result.exit_code == 2
    assert "Error: elsewhere holds no study" in result.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_command_is_a_study(call):
    result = call("stdy.yaml")
    assert result.exit_code == 2
    assert "study 'stdy.yaml' cannot be read" in result.stderr
    result = call("exampel")
    assert "there is no study 'exampel'; did you mean 'example'?" in result.stderr
    assert "Usage: main study" in call("--help").stdout
