"""The examples of the README give the output that stands below them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.vision import import_torchvision

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def without_times(text: str) -> str:
    return re.sub(r"\d+\.\d+ s\b", "TIME", text)


def test_there_are_examples():
    assert len(EXAMPLES) == README.count("```python")


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_example(code, output, capsys):
    import_torchvision()
    exec(compile(f"import pathlen\n{code}", "README.md", "exec"), {})
    assert without_times(capsys.readouterr().out) == without_times(output)
