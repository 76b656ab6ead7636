"""Files that are none, and texts that say two things: refused by whoever reads them, at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pathlen
from pathlen.errors import PathlenError, SettingsError
from pathlen.json_text import read_json, read_json_object
from pathlen.specs.spec import resolve
from pathlen.training import load_recipe
from pathlen.training.files import load_tree
from pathlen.training.recipe import Weights
from pathlen.training.study import load_study
from pathlen.training.weight_files import read_weight_file
from pathlen.training.yaml_text import read_yaml_text

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "path graph": ("graph.npz", pathlen.PathGraph.load),
    "program": ("model.pt2", lambda path: resolve(str(path))),
    "recipe": ("recipe.yaml", load_recipe),
    "study": ("study.yaml", load_study),
    "record": ("summary.json", lambda path: read_json_object(path, SettingsError)),
    "checkpoint": ("checkpoint.safetensors", load_tree),
    "weights": ("w.safetensors", lambda path: read_weight_file(Weights(file=str(path)))),
}


@contextmanager
def at_once() -> Iterator[None]:
    """End the process, with a traceback, if it waits for somebody."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # Rust does not return for Python's handlers
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a pipe", "device"])
def test_what_is_no_ordinary_file_is_not_waited_for(reader: str, kind: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
        if kind == "pipe":
            path.unlink()
            os.mkfifo(path)
    with at_once(), pytest.raises((PathlenError, OSError)) as caught:
        read(path)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '[{"b": {"x": 1, "y": 2, "x": 3}}]', '{"a": 1, "\\u0061": 2}']
)
def test_a_key_given_twice_is_no_json(text: str) -> None:
    """Which of the two counts is another one for each reader."""
    with pytest.raises(SettingsError, match=r"the key '[ax]' is given twice"):
        read_json(text, "it", SettingsError)


@pytest.mark.parametrize("number", ["010", "-017", "190:20:30", "1:30.5", "0_7", "+1:0"])
def test_numbers_that_are_others_than_they_look(number: str) -> None:
    """In YAML 1.1 they have base 8 or 60: `seed: 010` was 8, `seed: 190:20:30` was 685230."""
    with pytest.raises(SettingsError, match=r"another number in YAML 1\.1"):
        read_yaml_text(f"seed: {number}\n", "it")
    assert read_yaml_text(f"seed: '{number}'\n", "it") == {"seed": number}


def test_usual_numbers() -> None:
    found = read_yaml_text("[0, -0, 10, 0.5, 00.5x, 1e-4, 0x1f, 0.0, 1_000, 12:x, 1.5]", "it")
    assert found == [0, 0, 10, 0.5, "00.5x", 1e-4, 31, 0.0, 1000, "12:x", 1.5]
