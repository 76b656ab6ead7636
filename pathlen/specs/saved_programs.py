"""Programs saved by ``torch.export.save``, loaded without unpickling or running anything.

A .pt2 file is an archive of JSON and raw tensors, but ``torch.export.load`` of torch 2.13 unpickles
what some members hold, loads compiled code from others, evaluates symbolic sizes as Python
expressions, imports modules, looks up functions anywhere in torch, and writes names and guards into
code that it runs. So torch is not given the file: every part that is needed is checked, and a new
archive is made in memory of what was checked, which torch loads. Then all that the program calls is
looked at (`pathlen.tracing.checked`), before anything of it is run.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathlen.errors import PathlenError, SpecError
from pathlen.one_thread import unwarned
from pathlen.printable import printable
from pathlen.specs.saved_archives import UnsafeArchiveError, copy_member, members_of
from pathlen.specs.saved_examples import Arguments, read_examples
from pathlen.specs.saved_graphs import checked_program, read_json
from pathlen.whole_files import is_file

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

_PROGRAM = "models/model.json"
_EXAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = {
    "data/weights/": ("data/weights/model_weights_config.json", re.compile(r"weight_\d+")),
    "data/constants/": ("data/constants/model_constants_config.json", re.compile(r"tensor_\d+")),
}
_NEEDED = ("archive_format", "archive_version", "byteorder", ".data/version", "version")
_MOST_LABEL = 64  # bytes of these
_MOST_EQUAL = 1 << 28  # bytes of a tensor of which fewer are saved, as of one that is expanded
_MOST_AXES = 64


def load_exported_program(path: Path) -> ExportedProgram:
    """Load a .pt2 file.

    Args:
        path: A file written by ``torch.export.save``.

    Returns:
        The program, without the guards on its inputs, which are Python code.

    Raises:
        SpecError: There is no such file, it is damaged or not such an archive, or loading it
            would run code that it brings.
        UnsafeProgram: It calls something that is not known to be a pure computation.
    """
    from torch.export.pt2_archive._package import load_pt2

    from pathlen.lowering import rules  # noqa: F401 - which other libraries' operators are known
    from pathlen.tracing.checked import check_program

    if not is_file(path):
        raise SpecError(f"there is no file {str(path)!r}")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            content, examples = _checked(archive, path.stat().st_size)
        with unwarned(UserWarning):  # torch 2.11 warns of how it reads tensors itself
            # `torch.export.load` writes the traceback of what is damaged to stderr and hides it
            program = load_pt2(io.BytesIO(content)).exported_programs["model"]
        program.example_inputs = examples
    except (_RefusedError, UnsafeArchiveError) as error:
        raise SpecError(
            f"{str(path)!r} is not loaded: {error}; export the model again, or name its code as "
            "path/file.py:CALLABLE"
        ) from error
    except PathlenError:
        raise
    except Exception as error:  # torch and the readers raise anything about what is damaged
        raise _damaged(path, error) from error
    program._guards_code = []
    check_program(program)
    return program


class _RefusedError(ValueError):
    """Loading an archive would do more than read JSON and tensors."""


def _damaged(path: Path, error: Exception) -> SpecError:
    """Make the error for an archive that cannot be read; torch has its cause in a call of it."""
    told = f"{type(error).__name__}: {str(error)[:300]}"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if cause is not error:
        told += f" ({type(cause).__name__}: {str(cause)[:200]})"
    return SpecError(
        f"{str(path)!r} cannot be read as a program saved by torch.export.save: {printable(told)}"
    )


def _checked(archive: zipfile.ZipFile, length: int) -> tuple[bytes, Arguments | None]:
    """An archive of what is needed of another, and the example inputs in that.

    Raises:
        _RefusedError: Reading it would do more than read JSON and tensors.
        UnsafeArchiveError: It is no archive as torch writes them.
        Exception: It is damaged.
    """
    # torch falls back on this format, in which weights are pickles.
    if any(name == "version" or name.startswith("serialized_") for name in archive.namelist()):
        raise _RefusedError("it is of the format before torch 2.8")
    members = members_of(archive, length)
    if _PROGRAM not in members:
        raise ValueError(f"it has no member {_PROGRAM!r}")
    for name in members:
        if HARMLESS_MEMBERS.fullmatch(name) is None:
            raise _RefusedError(f"its member {name[:60]!r} may hold code or pickled objects")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as own:
        for name in _NEEDED:
            if name in members and members[name].file_size <= _MOST_LABEL:
                own.writestr(f"model/{name}", archive.read(members[name]))
        program, reason = checked_program(read_json(archive.read(members[_PROGRAM])))
        if reason is not None:
            raise _RefusedError(f"its member {_PROGRAM!r} {reason}")
        own.writestr(f"model/{_PROGRAM}", json.dumps(program))
        del program
        for folder, (config_name, payload) in _CONFIGS.items():
            config = read_json(archive.read(members[config_name]))
            for name in _payloads(config, folder, payload, members):
                copy_member(archive, members[name], own, f"model/{name}")
            own.writestr(f"model/{config_name}", json.dumps(config))
        own.writestr(f"model/{_EXAMPLES}", b"")
    examples, reason = read_examples(archive.read(members[_EXAMPLES]))
    if reason is not None:
        raise _RefusedError(f"its member {_EXAMPLES!r} {reason}")
    return content.getvalue(), examples


def _payloads(
    config: Any, folder: str, allowed: re.Pattern[str], members: Mapping[str, zipfile.ZipInfo]
) -> list[str]:
    """The members that a list of weights or constants names.

    Raises:
        _RefusedError: One would be unpickled, or is smaller than its tensor.
    """
    found: dict[str, None] = {}
    for payload in config["config"].values():
        name = payload["path_name"]
        if payload["use_pickle"] or not isinstance(name, str) or not allowed.fullmatch(name):
            raise _RefusedError(f"its weights have a pickled object, {str(name)[:60]!r}")
        reason = _reason_against_tensor(payload["tensor_meta"], members[folder + name].file_size)
        if reason is not None:
            raise _RefusedError(f"its tensor {name!r} {reason}")
        found[folder + name] = None
    return list(found)


def _reason_against_tensor(meta: Any, length: int) -> str | None:
    """Why a tensor is refused that has so many bytes in the file."""
    sizes = [size["as_int"] for size in meta["sizes"]]
    strides = [stride["as_int"] for stride in meta["strides"]]
    numbers = [*sizes, *strides, meta["storage_offset"]["as_int"]]
    if len(sizes) > _MOST_AXES or not all(isinstance(n, int) and n >= 0 for n in numbers):
        return "has sizes that are none"
    elements = math.prod(sizes)
    if length == 0 and elements:
        return f"has {elements:,} elements, and no bytes"
    if elements > max(length, _MOST_EQUAL):
        return f"has {elements:,} elements in {length:,} bytes"
    return None
