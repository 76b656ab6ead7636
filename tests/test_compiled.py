"""What compiled functions keep on disk is never used once a part of them has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AVERAGES = """
import json
from pathlen import PathGraph
from pathlen.backends import _numba_sweeps, get

edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)]
found = get("numba").solve(PathGraph.from_edges(edges, activity=[0, 1, 1, 1, 0]))
hits = _numba_sweeps._sweep_down.stats.cache_hits
print(json.dumps([found.average, 10**found.log10_path_count, sum(hits.values())]))
"""

TOTALS = """
import json
import sys

import numpy as np

from pathlen.backends._compiled import compiled

@compiled()
def total(values):
    result = values[0] - values[0]
    for value in values:
        result += value
    return result

found = [float(total(np.array(values))) for values in json.loads(sys.argv[1])]
print(json.dumps([*found, sum(total.stats.cache_hits.values())]))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be edited."""
    left_out = shutil.ignore_patterns("__pycache__", "training")
    shutil.copytree(ROOT / "pathlen", tmp_path / "pathlen", ignore=left_out)
    return tmp_path


def averages(copy: Path) -> list[float]:
    """Average, number of paths and hits of the cache, in a process of its own."""
    kept = {"PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": str(copy / "kept")}
    done = subprocess.run(
        [sys.executable, "-c", AVERAGES],
        env={**os.environ, **kept},
        cwd=copy,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    average, paths, hits = json.loads(done.stdout)
    return [average, round(paths, 9), hits]


def test_a_part_in_another_file_that_changes_makes_a_kernel_compile_anew(copy):
    assert averages(copy) == [1.0, 3.0, 0]  # three paths of one active unit each
    assert averages(copy) == [1.0, 3.0, 1]  # else nothing below would be told
    sums = copy / "pathlen" / "backends" / "_rows.py"
    text = sums.read_text()
    assert text.count("[0.0] * 4") == 1
    # Each of four sums of high parts and of low parts begins at 1, and each of the three last rows
    # adds 1 more: 14 paths instead of 3, of which three pass an active unit.
    sums.write_text(text.replace("[0.0] * 4", "[1.0] * 4"))
    assert averages(copy) == [pytest.approx(3 / 14), 14.0, 0]
    sums.write_text(text)
    assert averages(copy) == [1.0, 3.0, 0]


def totals(folder: Path, *arrays: list[float]) -> list[float]:
    """Sums of arrays and hits of the cache, in a process of its own."""
    path = folder / "totals.py"
    if not path.exists():  # its time is a part of what is kept
        path.write_text(TOTALS)
    done = subprocess.run(
        [sys.executable, path, json.dumps(arrays)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(folder / "kept")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_machine_code_for_other_types_is_not_used(tmp_path):
    """Two processes that compile at once may both take the first number for a file."""
    whole, real = [1, 2, 3], [0.5, 1.0, 1.5]
    assert totals(tmp_path, whole, real) == [6, 3, 0]
    assert totals(tmp_path, whole, real) == [6, 3, 2]
    first, second = sorted(tmp_path.glob("kept/**/*.nbc"))
    first.write_bytes(second.read_bytes())
    # The bits of these integers are floats next to 0.
    assert totals(tmp_path, whole, real) == [6, 3, 1]
    assert totals(tmp_path, whole, real) == [6, 3, 2]


def test_every_kernel_is_kept_in_this_way():
    for module in (ROOT / "pathlen" / "backends").glob("*.py"):
        if module.name != "_compiled.py":
            text = module.read_text()
            assert not any(x in text for x in ("njit", "numba.jit", "cache=True")), module.name
