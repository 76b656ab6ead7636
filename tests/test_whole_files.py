"""What pathlen leaves behind is whole or not there, follows no link, and is an ordinary file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import pathlen
from pathlen import figures, whole_files
from pathlen.errors import ReportError
from pathlen.show.files import write_text
from pathlen.training.files import save_tree
from pathlen.whole_files import replacing, write_bytes

GRAPH = pathlen.PathGraph.from_edges([(0, 1), (1, 2)], activity=[0, 1, 0])


def figure(path):
    drawn, axes = plt.subplots()
    axes.plot([1, 2])
    figures.save(drawn, path)
    plt.close(drawn)


WRITERS = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "graph": GRAPH.save,
    "graphml": pathlen.layer_graph(GRAPH).to_graphml,
    "dot": pathlen.layer_graph(GRAPH).to_dot,
    "mermaid": pathlen.layer_graph(GRAPH).to_mermaid,
    "html": lambda path: pathlen.measure(GRAPH).to_html(path),
    "figure": figure,
    "tree": lambda path: save_tree(path, {"a": 1}),
}


@pytest.fixture
def synced(monkeypatch, tmp_path):
    """What is flushed to the disk, and what is renamed, in order."""
    log = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor):
        log.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def replace(name, target):
        if tmp_path in Path(target).parents:  # numba renames files of its cache
            log.append("renamed")
        real_replace(name, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    return log


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_is_atomic_durable_and_follows_no_link(name, tmp_path, synced):
    other = tmp_path / "elsewhere" / "precious"
    other.parent.mkdir()
    other.write_bytes(b"old")
    path = tmp_path / "there" / "out.svg"
    path.parent.mkdir()
    path.symlink_to(other)
    # what releases before this one wrote to, and a link in every place that can be guessed
    for guess in (f".out.svg.{os.getpid()}.part", "out.svg.unfinished", ".out.svg.unfinished"):
        (path.parent / guess).symlink_to(other)
    before = set(os.listdir(path.parent))
    WRITERS[name](path)
    assert other.read_bytes() == b"old"
    assert os.listdir(other.parent) == ["precious"]
    assert not path.is_symlink()
    assert path.stat().st_size > 0
    assert set(os.listdir(path.parent)) == before
    assert synced == ["file", "renamed", "folder"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_file(mask, tmp_path):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "ours", b"")
        (tmp_path / "any").write_bytes(b"")
    finally:
        os.umask(before)
    ours, other = ((tmp_path / name).stat().st_mode for name in ("ours", "any"))
    assert ours == other
    os.chmod(tmp_path / "ours", 0o640)
    write_bytes(tmp_path / "ours", b"again")  # as any file keeps them
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == 0o640


def _fail(path, error):
    with replacing(path) as file:
        file.write(b"half")
        (name,) = set(os.listdir(path.parent)) - {"file"}
        assert name.startswith(".file.")
        assert name.endswith(".unfinished")
        raise error


def test_leftovers_are_removed_whatever_is_raised(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    for error in (ValueError, KeyboardInterrupt, OSError):
        with pytest.raises(error):
            _fail(path, error)
        assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


def test_names_cannot_be_guessed_and_must_be_new(tmp_path, monkeypatch):
    seen = set()
    for _ in range(20):
        with replacing(tmp_path / "file"):
            seen |= set(os.listdir(tmp_path))
    assert len(seen) == 21
    monkeypatch.setattr(whole_files.secrets, "token_hex", lambda number: "known")
    (tmp_path / ".file.known.unfinished").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "file", b"x")
    assert not (tmp_path / "victim").exists()


def test_what_is_no_ordinary_file_is_left_alone(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null"):
        with pytest.raises(ReportError, match="this is no ordinary file"):
            write_text(tmp_path / name, ["x"])
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "folder", b"")
    assert (tmp_path / "null").is_symlink()
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


def test_a_name_as_long_as_names_may_be(tmp_path):
    path = tmp_path / ("ü" * 127)
    write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_figure_without_an_ending_gets_one(tmp_path):
    figure(tmp_path / "picture")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ReportError, match="there is no folder"):
        figure(tmp_path / "none" / "picture.png")
    with pytest.raises(ValueError, match="doc"):
        figure(tmp_path / "picture.doc")
    assert os.listdir(tmp_path) == ["picture.png"]


def test_nothing_else_in_the_package_writes_results():
    """Text of the package: files are opened for writing in the places that are listed here."""
    root = Path(pathlen.__file__).parent
    known = {
        "whole_files.py",  # the writer
        "training/sources/download.py",  # what arrives over hours is added to, and kept
        "training/sources/unpack.py",  # into a folder that is renamed
        "training/study/child.py",  # a log that is added to
        "training/folder_lock.py",  # who works in a folder
        "training/weight_files.py",  # what a message shows
        "specs/saved_archives.py",  # archives in memory
    }
    marks = re.compile(
        r"""open\((\w+, )?["'][wxa]|["'][wxa]b["']|\.write_(text|bytes)\(|savefig\(path"""
        r"|json\.dump\(|torch\.save\(|save_file\(|np\.savez?\((path|target)|O_(WRONLY|RDWR)"
    )
    files = list(root.rglob("*.py"))
    assert len(files) > 300
    found = {
        str(path.relative_to(root))
        for path in files
        if marks.search(path.read_text(encoding="utf-8").replace("whole_files.write_bytes", ""))
    }
    assert found <= known
