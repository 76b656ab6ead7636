"""The examples in the documentation run, and give the output that stands below them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documentation import LEFT_OUT, agrees, blocks_of, lines_of, run_line, run_page
from tests.vision import import_torchvision

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if blocks_of(page.read_text()))


# Lightning asks torch's pytree in a way that torch calls outdated, and wants more workers.
@pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.:FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page, tmp_path, monkeypatch):
    import_torchvision()
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(), page.name)


def test_blocks_are_found():
    text = '```python title="a.py"\nx\n```\n\ntext\n\n```bash\ny\n```\n\n```text\nz\n```\n'
    first, second = blocks_of(text)
    assert (first.language, first.title, first.code, first.output) == (
        "python",
        "a.py",
        "x\n",
        None,
    )
    assert (second.language, second.title, second.output) == ("bash", None, "z\n")


def test_no_code_is_in_a_block_that_is_not_found():
    for page in PAGES:
        text = page.read_text()
        code = sum(text.count(f"```{language}") for language in ("python", "bash", "yaml"))
        assert code == len(blocks_of(text)), page


def test_outputs_are_compared():
    assert agrees("a 0.5 s\nb\n", "a 1.25 s\nb\n")
    assert agrees("a\nb\nc\nd\n", "a\n...\nd\n")
    assert agrees("a\n", "a\n...\n")
    assert not agrees("a\nb\n", "a\n")
    assert not agrees("a\nb\nc\n", "a\n...\nd\n")
    assert not agrees("a 0.5\n", "a 0.6\n")


def test_commands_have_to_be_known_and_to_succeed():
    with pytest.raises(AssertionError, match="no test knows"):
        run_line("rm -r everything", failure_shown=False)
    with pytest.raises(AssertionError, match="Error"):
        run_line("pathlen measure none:x", failure_shown=False)
    assert "Error" in run_line("pathlen measure none:x", failure_shown=True)
    assert run_line("pip install torch", failure_shown=False) == ""


def test_nothing_else_is_left_out():
    readme = DOCS.parent / "README.md"
    blocks = [block for page in (readme, *PAGES) for block in blocks_of(page.read_text())]
    lines = [line for b in blocks if b.language == "bash" for line in lines_of(b.code)]
    for pattern in LEFT_OUT:
        assert any(re.match(pattern, line) for line in lines), f"{pattern} is not needed any more"
