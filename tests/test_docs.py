"""The examples in the documentation run, and give the output that stands below them."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
PAGES = sorted(page for page in DOCS.rglob("*.md") if BLOCK.search(page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page, capsys):
    names = {}  # the examples of a page build on each other
    for code, output in BLOCK.findall(page.read_text()):
        exec(compile(code, page.name, "exec"), names)
        shown = capsys.readouterr().out
        if output:
            assert shown == output
