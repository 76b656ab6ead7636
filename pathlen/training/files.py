"""Files that are whole or not there: trees of tensors and plain values, texts.

A tree is written as one safetensors file, whose header holds the plain values as JSON; nothing is
pickled. Files are written as :mod:`pathlen.whole_files` does, so that a crash at any moment leaves
either the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pathlen import whole_files
from pathlen.errors import CheckpointError
from pathlen.json_text import read_json
from pathlen.printable import shown
from pathlen.training.records import check_run

_TENSOR = "__tensor__"


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece.

    Raises:
        CheckpointError: It cannot be written; what was there is left as it was.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in one piece.

    Raises:
        CheckpointError: It cannot be written; what was there is left as it was.
    """
    try:
        whole_files.write_bytes(path, data)
    except OSError as error:
        kept = "the one from before is kept" if path.exists() else "there is none from before"
        raise CheckpointError(f"{path} cannot be written: {error}; {kept}") from error


def save_tree(
    path: Path, tree: Mapping[str, Any], run: str = "", code: str = "", name: str = ""
) -> None:
    """Write nested mappings and lists of tensors, numbers, texts, booleans and None.

    Args:
        path: The file.
        tree: What to write.
        run: Key of the run that the file belongs to, which it keeps.
        code: Key of the code of its model, likewise; see :mod:`pathlen.training.code_key`.
        name: Which of the files of the run it is, likewise.

    Raises:
        CheckpointError: The file cannot be written; what was there is left as it was.
        TypeError: The tree holds something else.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_without_tensors(tree, "", tensors, {}))
    metadata = {"format": "pt", "tree": plain, "digest": _digest(plain, tensors, run)}
    metadata |= {key: own for key, own in (("run", run), ("code", code), ("name", name)) if own}
    write_bytes(path, save(tensors, metadata=metadata))


def _digest(plain: str, tensors: Mapping[str, Tensor], run: str) -> str:
    """What tells an altered file: safetensors has no checksum of its own."""
    digest = hashlib.blake2b((plain + run).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _without_tensors(
    part: Any, name: str, tensors: dict[str, Tensor], seen: dict[tuple[Any, ...], str]
) -> Any:
    """The tree with the name of a tensor in place of it; tied ones are written once."""
    if isinstance(part, Tensor):
        where = (part.data_ptr(), part.shape, part.stride(), part.dtype, part.device)
        known = seen.get(where) if part.numel() else None
        if known is None:
            if name in tensors:
                raise TypeError(f"two tensors would be saved as {name!r}; keys hold dots")
            tensors[name] = part.detach().to("cpu").clone(memory_format=torch.contiguous_format)
            seen[where] = known = name
        return {_TENSOR: known}
    if isinstance(part, Mapping):
        if not all(isinstance(key, str) for key in part):
            raise TypeError(f"keys of {name or 'the tree'!r} must be texts, not {list(part)[:3]}")
        inner = f"{name}." if name else ""
        return {
            key: _without_tensors(value, inner + key, tensors, seen) for key, value in part.items()
        }
    if isinstance(part, list | tuple):
        return [_without_tensors(v, f"{name}.{i}", tensors, seen) for i, v in enumerate(part)]
    if part is None or isinstance(part, bool | int | float | str):
        return part
    raise TypeError(f"{name} is a {type(part).__name__}; only tensors and plain values are saved")


def load_tree(path: Path, run: str = "") -> dict[str, Any]:
    """Read what `save_tree` wrote; tensors are on the CPU.

    Args:
        path: The file.
        run: Key of the run that it should belong to; one that names none is taken for its file,
            with a warning.

    Raises:
        CheckpointError: The file is not there, cut short, altered, of another run, or something
            else.
    """
    metadata, tensors = _read(path, run)
    if "tree" not in metadata:
        raise CheckpointError(f"{path} was not written by pathlen: it holds tensors only")
    _warn_of_no_run(path, metadata, run)
    return _tree(path, metadata, tensors)


def read_weights(path: Path, run: str = "", name: str = "") -> dict[str, Tensor]:
    """Read weights by name, from a file that `save_tree` wrote or any other safetensors file.

    Args:
        path: The file.
        run: As for `load_tree`.
        name: Which of the files of the run it should be, likewise.

    Raises:
        CheckpointError: The file is not there, cut short, altered, of another run, another one of
            the run, or no safetensors file.
    """
    metadata, tensors = _read(path, run)
    found = metadata.get("name", name)
    if name and found != name:
        raise CheckpointError(
            f"{path} is what the run has written as {shown(found, 40)}, and not its {name!r}:"
            " put back the one that belongs there"
        )
    _warn_of_no_run(path, metadata, run)
    return _tree(path, metadata, tensors) if "tree" in metadata else tensors


def _warn_of_no_run(path: Path, metadata: Mapping[str, str], run: str) -> None:
    if run and "run" not in metadata:
        warnings.warn(
            f"{path} does not say which run it is of, as a file of an earlier release or of"
            " another program: see to it that it belongs to the recipe.yaml beside it",
            stacklevel=4,
        )


def code_of_file(path: Path) -> str | None:
    """The key of the code of a model that a file was written with, None if it keeps none.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        whole_files.require_ordinary(path.stat(), path)
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("code")
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _read(path: Path, run: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header's texts and the tensors of a safetensors file."""
    try:
        whole_files.require_ordinary(path.stat(), path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if run:
        check_run(path, metadata.get("run"), run)
    return metadata, tensors


def _tree(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if metadata.get("digest") != _digest(metadata["tree"], tensors, metadata.get("run", "")):
        raise CheckpointError(f"{path} cannot be read: it was altered since it was written")
    plain = read_json(metadata["tree"], f"{path}: its header", CheckpointError)
    try:
        tree = _with_tensors(plain, tensors)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: it lacks the tensor {error}") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} cannot be read: it holds {shown(tree)}")
    return tree


def _with_tensors(part: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(part, dict):
        if part.keys() == {_TENSOR}:
            return tensors[part[_TENSOR]]
        return {key: _with_tensors(value, tensors) for key, value in part.items()}
    if isinstance(part, list):
        return [_with_tensors(value, tensors) for value in part]
    return part
