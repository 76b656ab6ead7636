"""Programs saved by ``torch.export.save``, loaded without unpickling anything.

A .pt2 file is an archive of JSON and raw tensors, but ``torch.export.load`` of torch 2.13
unpickles what some members hold, loads compiled code from others, evaluates symbolic sizes as
Python expressions and writes names and guards into code that it runs. So an archive is read
twice, from the same bytes and with torch's own reader: first to see that it holds nothing but
names, numbers and tensors, then to load it. This closes the ways that were found; torch gives no
promise about files from people one does not trust.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathlen.errors import SpecError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

HARMLESS_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/.*|\.format_version|\.storage_alignment|version"
    r"|models/[^/]+\.json"
    r"|data/weights/(weight_\d+|[^/]+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|[^/]+_constants_config\.json)"
    r"|data/sample_inputs/[^/]+\.pt"
    r"|extra/.*"
)
"""Members that hold JSON, text or raw tensors. Not among them: pickled objects, old weight files
and compiled models, which would be run."""

PAYLOAD_CONFIG = re.compile(r"data/(weights|constants)/[^/]+_config\.json")

HARMLESS_PAYLOAD = re.compile(r"(weight|tensor)_\d+")

SYMBOL = re.compile(r"[a-z]{1,2}\d+")
"""How torch names a size that is not known: s0, u1, ..."""

ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.expr_context,
)

# fmt: off
SIZE_FUNCTIONS = frozenset({
    "Symbol", "Abs", "Max", "Min", "Mod", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or",
    "Not", "Integer", "Rational", "Add", "Mul", "Pow", "floor", "ceiling", "true", "false",
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt",
    "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv",
    "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt",
    "RoundDecimal", "ToFloat", "Identity",
})
# fmt: on


def load_exported_program(path: Path) -> ExportedProgram:
    """Load a .pt2 file.

    Args:
        path: A file written by ``torch.export.save``.

    Returns:
        The program, without the guards on its inputs, which are Python code.

    Raises:
        SpecError: There is no such file, it is damaged or not such an archive, or loading it
            would run code that it brings.
    """
    import torch

    if not path.is_file():
        raise SpecError(f"there is no file {str(path)!r}")
    content = path.read_bytes()
    try:
        reason = _reason_to_refuse(content)
    except Exception as error:
        raise _damaged(path, error) from error
    if reason is not None:
        raise SpecError(
            f"{str(path)!r} is not loaded: {reason}; export the model again, or name its code as "
            "path/file.py:CALLABLE"
        )
    try:
        with warnings.catch_warnings():  # torch 2.11 warns of how it reads tensors itself
            warnings.simplefilter("ignore", UserWarning)
            program = torch.export.load(io.BytesIO(content))
    except Exception as error:
        raise _damaged(path, error) from error
    program._guards_code = []
    return program


def _damaged(path: Path, error: Exception) -> SpecError:
    """Make the error for an archive that cannot be read; these make torch raise anything."""
    return SpecError(
        f"{str(path)!r} cannot be read as a program saved by torch.export.save: "
        f"{type(error).__name__}: {error}"
    )


def _reason_to_refuse(content: bytes) -> str | None:
    """Say why loading an archive would do more than read JSON and tensors, if it would."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # torch falls back on this format, in which weights are pickles.
        if any(name == "version" or name.startswith("serialized_") for name in archive.namelist()):
            return "it is of the format before torch 2.8"
    from torch.export.pt2_archive import PT2ArchiveReader

    reader = PT2ArchiveReader(io.BytesIO(content))
    names = reader.get_file_names()
    for name in names:
        if HARMLESS_MEMBERS.fullmatch(name) is None:
            return f"its member {name!r} may hold code or pickled objects"
    for name in names:
        reason = None
        if PAYLOAD_CONFIG.fullmatch(name):
            reason = _payload_reason(json.loads(reader.read_bytes(name)))
        elif name.startswith("models/"):
            reason = _program_reason(json.loads(reader.read_bytes(name)))
        elif name.startswith("data/sample_inputs/"):
            reason = _tensors_reason(reader.read_bytes(name))
        if reason is not None:
            return f"its member {name!r} {reason}"
    return None


def _payload_reason(config: dict[str, Any]) -> str | None:
    """Say why a list of weights or constants would be unpickled, if it would."""
    for payload in config["config"].values():
        if payload["use_pickle"] or not HARMLESS_PAYLOAD.fullmatch(payload["path_name"]):
            return f"has a pickled object, {payload['path_name']!r}"
    return None


def _program_reason(program: dict[str, Any]) -> str | None:
    """Say why a program's text would be run as code, if it would."""
    for text in _values_of("expr_str", program):
        if not _is_arithmetic(str(text)):
            return f"has the size {str(text)[:60]!r}, which is more than arithmetic"
    for name in _values_of("name", program["graph_module"]["graph"]):
        if isinstance(name, str) and name and not name.isidentifier():
            return f"has the name {name[:60]!r}, which is no identifier"
    return None


def _is_arithmetic(text: str) -> bool:
    """Whether an expression holds only numbers, names of sizes and functions of sizes."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            fine = node.id in SIZE_FUNCTIONS or SYMBOL.fullmatch(node.id) is not None
        elif isinstance(node, ast.Constant):
            # A text is an expression of its own to sympy, so it may only be a size's name.
            fine = not isinstance(node.value, str) or SYMBOL.fullmatch(node.value) is not None
        elif isinstance(node, ast.Call):
            fine = isinstance(node.func, ast.Name)
        else:
            fine = isinstance(node, ARITHMETIC)
        if not fine:
            return False
    return True


def _values_of(key: str, tree: Any) -> Iterator[Any]:
    """Give everything that stands under a key anywhere in a tree of JSON."""
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if key in item:
                yield item[key]
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _tensors_reason(content: bytes) -> str | None:
    """Say why example inputs would be unpickled as more than tensors, if they would."""
    import torch

    try:
        if content:
            torch.load(io.BytesIO(content), weights_only=True)
    except pickle.UnpicklingError:
        return "holds more than tensors"
    return None
