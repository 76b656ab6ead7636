"""The notebooks of the documentation run, and print what is kept in them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.documentation import agrees

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 3


EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
client = NotebookClient(notebook, timeout=300, kernel_name="python3")
client.create_kernel_manager().transport = "ipc"  # sockets in the file system: no port is opened
client.execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture
def environment():
    """Folders of its own for what Jupyter, IPython and matplotlib write."""
    # Not below tmp_path: names of sockets have at most 107 letters.
    with tempfile.TemporaryDirectory(prefix="nb") as folder:
        names = ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
        yield {**os.environ, "PYTHONPATH": str(ROOT), **dict.fromkeys(names, folder)}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, environment):
    kept = nbformat.read(path, as_version=4)
    nbformat.validate(kept)
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, path, "run.ipynb"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = nbformat.read(tmp_path / "run.ipynb", as_version=4)
    for number, (before, after) in enumerate(zip(kept.cells, run.cells, strict=True)):
        if before.cell_type == "code":
            assert kinds(before) == kinds(after), f"outputs of cell {number} are not those kept"
            assert agrees(text_of(after), text_of(before)), f"cell {number}:\n{text_of(after)}"


def kinds(cell: Any) -> list[tuple[str, list[str]]]:
    """What kinds of outputs a cell has: that a figure is drawn, not how.

    What is printed comes in pieces, of which a loaded machine makes more.
    """
    found = [(o.get("name") or o.output_type, sorted(o.get("data", ()))) for o in cell.outputs]
    return [kind for kind, _ in itertools.groupby(found)]


def text_of(cell: Any) -> str:
    """What a cell prints and returns, figures left out."""
    texts = []
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" not in data:
            texts.append(output.get("text") or data.get("text/plain", ""))
    return "".join(texts)
