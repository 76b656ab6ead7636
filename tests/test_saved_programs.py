"""Programs saved by torch.export: loaded, or refused where loading would run what they bring."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pathlen import SpecError
from pathlen.saved_programs import load_exported_program

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


class CutAndScale(nn.Module):
    """A model with a buffer, a constant, a keyword argument, and sizes that are expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(4))
        self.constant = torch.zeros(4)

    def forward(self, x, *, shift):
        return torch.cat([x, self.linear(x[:, 1:]) * self.scale + self.constant + shift], 1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    sizes = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", min=3)}, "shift": {}}
    program = torch.export.export(
        CutAndScale(),
        (torch.randn(2, 5, 4),),
        {"shift": torch.ones(4)},
        dynamic_shapes=sizes,
        strict=False,
    )
    path = tmp_path_factory.mktemp("saved") / "model.pt2"
    torch.export.save(program, path)
    return path


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """Copy an archive, changing the contents of its members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_a_program_is_loaded_with_its_example_inputs(saved):
    program = load_exported_program(saved)
    (x,), kwargs = program.example_inputs
    assert x.shape == (2, 5, 4)
    assert list(kwargs) == ["shift"]
    assert program.module()(x, **kwargs).shape == (2, 9, 4)


def test_a_copy_through_zipfile_is_still_loaded(saved, tmp_path):
    copy = rewrite(saved, tmp_path / "copy.pt2", lambda name, content: content)
    assert load_exported_program(copy).example_inputs[0][0].shape == (2, 5, 4)


def test_a_pickled_object_among_the_inputs_is_refused_and_not_run(saved, tmp_path):
    mark = tmp_path / "was_run"
    buffer = io.BytesIO()
    torch.save(Trap(mark), buffer)

    def change(name, content):
        return buffer.getvalue() if "sample_inputs" in name else content

    path = rewrite(saved, tmp_path / "trap.pt2", change)
    with pytest.raises(SpecError, match="holds more than tensors"):
        load_exported_program(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("member", "old", "new", "message"),
    [
        ("weights_config.json", r'"use_pickle": false', '"use_pickle": true', "a pickled object"),
        ("constants_config.json", r'"tensor_0"', '"opaque_obj_0"', "a pickled object"),
        ("model.json", r'"expr_str": "', '"expr_str": "__import__(\'os\') + ', "than arithmetic"),
        ("model.json", '"expr_str": "', '"expr_str": "(', "more than arithmetic"),
        ("model.json", r"Symbol\('(s\d+)'", r"Symbol('exit()'", "more than arithmetic"),
        ("model.json", r'"name": "x"', '"name": "x=exit()"', "no identifier"),
    ],
)
def test_what_would_run_code_is_refused(saved, tmp_path, member, old, new, message):
    changed = []

    def change(name, content):
        if not name.endswith(member):
            return content
        text, count = re.subn(old, new, content.decode())
        changed.append(count)
        return text.encode()

    path = rewrite(saved, tmp_path / "hostile.pt2", change)
    assert sum(changed) > 0
    with pytest.raises(SpecError, match=message):
        load_exported_program(path)


@pytest.mark.parametrize(
    "member",
    [
        "model/data/aotinductor/model/compiled.so",
        "model/data/weights/model.pt",
        "model/data/constants/custom_obj_0",
    ],
)
def test_members_that_hold_code_are_refused(saved, tmp_path, member):
    path = tmp_path / "more.pt2"
    path.write_bytes(saved.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"anything")
    with pytest.raises(SpecError, match="may hold code or pickled objects"):
        load_exported_program(path)


def test_the_older_format_is_refused(saved, tmp_path):
    path = tmp_path / "older.pt2"
    path.write_bytes(saved.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", b"8.20")
    with pytest.raises(SpecError, match=r"format before torch 2\.8"):
        load_exported_program(path)


def test_guards_are_not_kept(saved):
    assert load_exported_program(saved)._guards_code == []


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "no.pt2"
    path.write_bytes(content)
    with pytest.raises(SpecError, match="cannot be read as a program"):
        load_exported_program(path)


def test_a_file_cut_short_is_refused(saved, tmp_path):
    path = tmp_path / "short.pt2"
    path.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(SpecError, match="cannot be read as a program"):
        load_exported_program(path)


def test_a_plain_zip_file_is_refused(tmp_path):
    path = tmp_path / "plain.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b", b"c")
    with pytest.raises(SpecError, match="cannot be read as a program"):
        load_exported_program(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(SpecError, match="there is no file"):
        load_exported_program(tmp_path / "none.pt2")
