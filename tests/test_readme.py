"""The examples of the README run, and give the output that stands below them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.documentation import blocks_of, run_page
from tests.vision import import_torchvision

README = (Path(__file__).parent.parent / "README.md").read_text()

MODEL = """import torch


def make_model():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
"""


def test_there_are_examples():
    blocks = blocks_of(README)
    assert len(blocks) == sum(README.count(f"```{name}") for name in ("python", "bash", "yaml"))
    for block in blocks:
        if block.language == "python":
            assert block.output is not None, block.code


@pytest.fixture
def files_that_it_names(tmp_path, monkeypatch):
    """The models that stand for the reader's own."""
    monkeypatch.chdir(tmp_path)
    Path("path/to").mkdir(parents=True)
    Path("path/to/file.py").write_text(MODEL)
    names: dict[str, object] = {}
    exec(MODEL, names)
    program = torch.export.export(names["make_model"]().eval(), (torch.zeros(1, 3, 16, 16),))
    torch.export.save(program, "model.pt2")


def test_examples(files_that_it_names):
    import_torchvision()
    # `report` is what an example before it measured, and models are imported in the first one.
    run_page(README, "README.md")
