"""Running the code blocks of a page of the documentation, in order and in one folder.

`python` blocks build on each other. A block with a title (```` ```python title="my_model.py" ````)
is a file: it is written, not run. `bash` blocks run line by line: `pathlen ...` in this process,
so that torch is imported once for all pages, and a few plain programs as they are. What takes a
network or a person is left out, for a reason that `LEFT_OUT` states; any other command is an
error, so that nothing is left out unnoticed. A `text` block right below a block is its output.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

LEFT_OUT = {
    r"python3 -m venv |\S*pip install ": "installs from a package index, as .ci/run does",
    r"source \S*/bin/activate$": "belongs to the environment that the line before made",
    r"\S*pytest$": "runs this test, among others",
    r"\S*pathlen demo$": "trains a network for a minute, which .ci/run does",
}
PLAIN = ("ls", "cat", "head", "wc")
"""Programs that a page may call beside `pathlen` and `python`."""

BLOCK = re.compile(
    r"^```(?P<language>python|bash|yaml)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
TIME = re.compile(r"\b\d+(\.\d+)? m?s\b")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code: its language, the file it is or None, and the output below it or None."""

    language: str
    title: str | None
    code: str
    output: str | None


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page, in order; text and other languages are no code."""
    return [Block(**found.groupdict()) for found in BLOCK.finditer(text)]


def run_page(text: str, name: str) -> None:
    """Run all blocks in the current folder, and compare what they print with what is shown.

    Raises:
        AssertionError: An output is not the one shown, or a command fails or is unknown.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(text):
        if block.title is not None:
            Path(block.title).write_text(block.code)
            assert block.output is None, f"{name}: {block.title} is a file and prints nothing"
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if block.language == "python":
                exec(compile(block.code, name, "exec", dont_inherit=True), names)
            else:
                assert block.language == "bash", f"{name}: a block of {block.language} has no title"
                failure_shown = block.output is not None and "Error: " in block.output
                for line in lines_of(block.code):
                    print(run_line(line, failure_shown), end="")
        if block.output is not None:
            shown, expected = printed.getvalue(), block.output
            assert agrees(shown, expected), f"{name}: the output below\n{block.code}is\n{shown}"


def lines_of(code: str) -> Iterator[str]:
    r"""Commands of a bash block: comments and empty lines left out, `\` and `&&` resolved."""
    for line in code.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield from line.split(" && ")


def run_line(line: str, failure_shown: bool) -> str:
    """Run one command and give what it prints, errors included."""
    if any(re.match(pattern, line) for pattern in LEFT_OUT):
        return ""
    program, *arguments = shlex.split(line, comments=True)
    if Path(program).name == "pathlen":
        return run_pathlen(arguments, failure_shown)
    if program == "python" and arguments[0].endswith(".py"):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            runpy.run_path(arguments[0], run_name="__main__")
        return printed.getvalue()
    assert program in PLAIN, f"no test knows how to run {line!r}: see tests/documentation.py"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def run_pathlen(arguments: list[str], failure_shown: bool) -> str:
    """Call the command line; it has to succeed, or to fail where an error is shown."""
    from pathlen.cli.main import main

    result = CliRunner().invoke(main, arguments, catch_exceptions=False, prog_name="pathlen")
    assert (result.exit_code != 0) == failure_shown, result.output
    return result.output


def agrees(printed: str, shown: str) -> bool:
    """Whether an output is the one shown, in which `...` alone on a line stands for any lines.

    Times differ from run to run and are not compared.
    """
    parts = [re.escape(part) for part in re.split(r"(?m)^\.\.\.\n", TIME.sub("TIME", shown))]
    return re.fullmatch("(?:.*\n)*?".join(parts), TIME.sub("TIME", printed)) is not None
