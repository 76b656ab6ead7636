"""Programs saved by torch.export: loaded, or refused where loading would run what they bring."""

from __future__ import annotations

import io
import json
import re
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pathlen
from pathlen.errors import SpecError
from pathlen.specs.saved_programs import load_exported_program
from pathlen.specs.saved_sizes import is_arithmetic

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


# Archives and texts that would take memory or time, or name what they must not.


def archive(path: Path, members: list[tuple[str, bytes]], compression=zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings():  # of names that are there twice
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, content in members:
                file.writestr(name, content)
    return path


def members_of(path: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def test_a_deflated_archive_is_refused(saved, tmp_path):
    path = archive(tmp_path / "small.pt2", members_of(saved), zipfile.ZIP_DEFLATED)
    with pytest.raises(SpecError, match="compressed"):
        load_exported_program(path)


def test_a_text_that_is_deflated_is_not_read(saved, tmp_path):
    members = [
        (name, b" " * (200 << 20) if name.endswith("model.json") else content)
        for name, content in members_of(saved)
    ]
    path = archive(tmp_path / "bomb.pt2", members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(SpecError, match="compressed"):
        load_exported_program(path)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model/models/model.json", "twice"),
        ("model/../../outside", "no name of a member"),
        ("other/extra/x", "several folders"),
        ("model/extra/a\\b", "no name of a member"),
    ],
)
def test_members_of_other_names_are_refused(saved, tmp_path, name, message):
    path = archive(tmp_path / "more.pt2", [*members_of(saved), (name, b"x")])
    with pytest.raises(SpecError, match=message):
        load_exported_program(path)


def test_bytes_before_the_archive_are_refused(saved, tmp_path):
    path = tmp_path / "behind.pt2"
    path.write_bytes(b"#!/bin/sh\n" + saved.read_bytes())
    with pytest.raises(SpecError, match="other bytes before"):
        load_exported_program(path)


def changed(saved: Path, path: Path, change: Callable[[Any], None], member="model.json") -> Path:
    """Copy an archive, changing one of its texts."""

    def text(name: str, content: bytes) -> bytes:
        if not name.endswith(f"/{member}"):
            return content
        tree = json.loads(content)
        change(tree)
        return json.dumps(tree).encode()

    return rewrite(saved, path, text)


def _name_a_parameter(tree, name):
    signature = tree["graph_module"]["signature"]
    next(s for s in signature["input_specs"] if "parameter" in s)["parameter"]["parameter_name"] = (
        name
    )


def _nest(tree, **entries):
    call = tree["graph_module"]["module_call_graph"][0]["signature"]
    protocol, nest = json.loads(call["out_spec"])
    nest.update(entries)
    call["out_spec"] = json.dumps([protocol, nest])


def _graph(tree):
    return tree["graph_module"]["graph"]


HOSTILE = {
    "size that explodes": (
        lambda tree: _resize(tree, "9**9**9"),
        "more than arithmetic",
    ),
    "size that explodes, as a function": (
        lambda tree: _resize(tree, "Pow(9, Pow(9, 9))"),
        "more than arithmetic",
    ),
    "size that is long": (lambda tree: _resize(tree, "+".join(["1"] * 20_000)), "arithmetic"),
    "size that is deep": (lambda tree: _resize(tree, "(" * 900 + "1" + ")" * 900), "arithmetic"),
    "symbol with a large number": (
        lambda tree: tree["range_constraints"].update(u999999999=None),
        "no name of a size",
    ),
    "large number": (lambda tree: _graph(tree).update(sym_int_values={"a": 2**70}), "64 bits"),
    "deep text": (lambda tree: tree.update(extra=_deep(200)), "levels deep"),
    "code in the name of a parameter": (
        lambda tree: _name_a_parameter(tree, 'x")\nimport os\n#'),
        "has the parameter name",
    ),
    "code in the name of an argument": (
        lambda tree: tree["graph_module"]["module_call_graph"][0]["signature"].update(
            forward_arg_names=["x=exit()", "shift"]
        ),
        "no identifier",
    ),
    "code in the name of a size": (
        lambda tree: _graph(tree)["nodes"][0]["outputs"].append(
            {"as_sym_int": {"as_name": "a; exit()"}}
        ),
        "no identifier",
    ),
    "module that is imported": (
        lambda tree: _nest(
            tree,
            type="collections.defaultdict",
            context={
                "default_factory_module": "antigravity",
                "default_factory_name": "fly",
                "dict_context": [],
            },
        ),
        "name the module 'antigravity'",
    ),
    "enumeration that is imported": (
        lambda tree: _nest(
            tree,
            type="builtins.list",
            context=json.dumps({"__enum__": True, "fqn": "antigravity:X", "name": "x"}),
        ),
        "to import",
    ),
    "function of Python": (
        lambda tree: _graph(tree)["nodes"][0].update(target="torch.os.system"),
        "no operator",
    ),
    "operator that takes functions": (
        lambda tree: _graph(tree)["nodes"][0].update(target="torch.ops.higher_order.print"),
        "takes functions",
    ),
    "custom object": (
        lambda tree: _graph(tree)["custom_obj_values"].update(a={"name": "a", "class_fqn": "b"}),
        "custom objects",
    ),
}


def _resize(tree, text):
    next(iter(_graph(tree)["tensor_values"].values()))["sizes"][0] = {
        "as_expr": {"expr_str": text, "hint": {"as_int": 1}}
    }


def _deep(levels):
    return [_deep(levels - 1)] if levels else []


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_texts_are_refused(saved, tmp_path, what):
    change, message = HOSTILE[what]
    path = changed(saved, tmp_path / "hostile.pt2", change)
    with pytest.raises(SpecError, match=message):
        load_exported_program(path)
    assert "antigravity" not in sys.modules


def test_a_number_of_many_digits_is_refused(saved, tmp_path):
    def text(name: str, content: bytes) -> bytes:
        is_program = name.endswith("/model.json")
        return content[:-1] + b', "a": ' + b"9" * 10_000 + b"}" if is_program else content

    with pytest.raises(SpecError, match="cannot be read as a program"):
        load_exported_program(rewrite(saved, tmp_path / "digits.pt2", text))


@pytest.mark.parametrize(
    ("sizes", "strides", "message"),
    [
        ([10**12], [0], "elements in"),
        ([-1], [1], "sizes that are none"),
        ([2] * 70, [0] * 70, "none"),
    ],
)
def test_tensors_larger_than_their_bytes_are_refused(saved, tmp_path, sizes, strides, message):
    def change(config):
        meta = next(iter(config["config"].values()))["tensor_meta"]
        meta["sizes"] = [{"as_int": size} for size in sizes]
        meta["strides"] = [{"as_int": stride} for stride in strides]

    path = changed(saved, tmp_path / "large.pt2", change, "model_weights_config.json")
    with pytest.raises(SpecError, match=message):
        load_exported_program(path)


def test_a_tensor_outside_of_its_bytes_is_refused(saved, tmp_path):
    def change(config):
        meta = next(iter(config["config"].values()))["tensor_meta"]
        meta["storage_offset"] = {"as_int": 10**6}

    path = changed(saved, tmp_path / "outside.pt2", change, "model_weights_config.json")
    with pytest.raises(SpecError, match="cannot be read as a program"):
        load_exported_program(path)


def test_a_list_that_holds_itself_many_times_is_refused(saved, tmp_path):
    nest: Any = [torch.zeros(1)]
    for _ in range(9):
        nest = [nest] * 9
    buffer = io.BytesIO()
    torch.save(((nest,), {}), buffer)

    def change(name, content):
        return buffer.getvalue() if "sample_inputs" in name else content

    path = rewrite(saved, tmp_path / "nest.pt2", change)
    with pytest.raises(SpecError, match="more than 10,000 arguments"):
        load_exported_program(path)


@pytest.mark.parametrize(
    "text",
    [
        "LessThan(Symbol('u0', integer=True), Integer(5))",
        "2*s0 + 1",
        "Pow(s0, 2)",
        "Max(1, s0)",
        "Symbol('s0', integer=True)",
    ],
)
def test_sizes_that_are_arithmetic_are_read(text):
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "2**2**100",
        "LShift(1, 10**9)",
        "s0.real",
        "s0[0]",
        "lambda: 1",
        "Symbol('s0', cls=1)",
        "abs(s0)",
    ],
)
def test_others_are_not(text):
    assert not is_arithmetic(text)


# Programs as people have them.


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        deep = lambda x: torch.relu(self.layer(torch.relu(x)))  # noqa: E731
        return torch.cond(x.sum() > 0, deep, lambda x: torch.relu(x + 1), (x,))


class Picking(nn.Module):
    """What it keeps depends on values, so that sizes are symbols with bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        y = torch.relu(self.layer(x))
        return y[y[:, 0] > -1].sum(0)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5))

    def forward(self, x):
        return self.layer(x, src_mask=self.mask)


def _small_networks():
    image, text = torch.randn(1, 3, 16, 16), torch.randn(2, 5, 8)
    convolution = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardswish(inplace=True), nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    return {
        "convolution": (convolution, image),
        "attention": (Attending(), text),
        "recurrent": (nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), text),
        "branches": (Branches(), torch.ones(2, 4)),
        "picking": (Picking(), torch.ones(2, 4)),
    }


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("name", ["convolution", "attention", "recurrent", "branches", "picking"])
def test_ordinary_programs_measure_as_their_models_do(tmp_path, name, decomposed):
    model, x = _small_networks()[name]
    program = torch.export.export(model.eval(), (x,), strict=False)
    if decomposed:
        program = program.run_decompositions()
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = load_exported_program(tmp_path / "model.pt2")
    for edges in ("connections", "weights"):
        own, other = (pathlen.measure(m, x, edges=edges) for m in (model, loaded))
        assert other.average_path_length == pytest.approx(own.average_path_length, rel=1e-12)
