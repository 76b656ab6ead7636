"""Weights that somebody has trained, in the files that people keep them in.

A file of `torch.save` is a pickle, which is read only where that is asked for, and then as
`torch.load(weights_only=True)` does: tensors and plain values, no code. Around the weights there
may be a dict with an epoch and an optimizer beside them; their names may begin with what
DataParallel and `torch.compile` put there, and may be other names than a model of ours has.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathlen.errors import CheckpointError
from pathlen.printable import shown
from pathlen.training.files import read_weights
from pathlen.training.recipe import Weights
from pathlen.whole_files import is_folder, open_to_read

Contents = frozenset[tuple[str, torch.Size]]
_WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel, DistributedDataParallel and `torch.compile` put before the names."""


def read_weight_file(given: Weights) -> dict[str, Tensor]:
    """Read the weights in a file, by the names that they have there.

    Raises:
        CheckpointError: It cannot be read, is a pickle and not said to be one, or holds no
            weights or several sets of them.
    """
    path = Path(given.file)
    path = path / "model.safetensors" if is_folder(path) else path
    if not _is_pickle(path):
        return _chosen(read_weights(path), given.part, path)
    if not given.pickled:
        raise CheckpointError(
            f"{path} was written by torch.save and is a pickle, which is not read unless you say"
            " so: give the recipe\n"
            f"  weights: {{file: {path}, pickled: true}}\n"
            "and it is read with torch.load(weights_only=True), which runs no code. Or convert:\n"
            f"{CONVERSION.format(source=str(path), target=str(path.with_suffix('.safetensors')))}"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        told = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read with torch.load(weights_only=True): {told}\n"
            "A file that holds more than tensors and plain values has to be converted by a program"
            " of yours, if you trust it: save its state_dict alone"
        ) from error
    return _chosen(content, given.part, path)


CONVERSION = """\
  import torch, safetensors.torch
  weights = torch.load({source!r}, map_location="cpu", weights_only=True)
  weights = {{name: tensor.clone().contiguous() for name, tensor in weights.items()}}
  safetensors.torch.save_file(weights, {target!r})"""
"""Python that turns a `state_dict` of `torch.save` into a safetensors file."""


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as those of `torch.save` do, those of old releases included."""
    try:
        with open_to_read(path) as file:
            begin = file.read(9)
            length = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    # a safetensors file begins with the length of its header in 8 bytes, which may be any
    if begin[8:] == b"{" and 8 + int.from_bytes(begin[:8], "little") <= length:
        return False
    return begin.startswith((b"PK", b"\x80"))


def _chosen(content: Any, part: str | None, path: Path) -> dict[str, Tensor]:
    """The weights in what a file holds: all of it, or the one part of it that is weights."""
    if part is None and _are_weights(content):
        return dict(content)
    parts = (
        {str(key): value for key, value in content.items() if _are_weights(value)}
        if isinstance(content, Mapping)
        else {}
    )
    if part is None and len(parts) == 1:
        return dict(*parts.values())
    if part in parts:
        return dict(parts[part])
    if not parts:
        held = (
            f"a dict of {', '.join(map(str, [*content][:6]))}"
            if isinstance(content, Mapping)
            else f"a {type(content).__name__}"
        )
        raise CheckpointError(
            f"{path} holds {held}, and no weights by name; save model.state_dict()"
        )
    asked = "several sets of weights" if part is None else f"no weights called {shown(part)}"
    raise CheckpointError(
        f"{path} holds {asked}; set weights.part to one of {', '.join(sorted(parts))}"
    )


def _are_weights(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def with_names_of_ours(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], given: Weights
) -> dict[str, Tensor]:
    """Weights without what wrappers put before their names, and renamed as a recipe says.

    Args:
        weights: By the names in the file.
        own: The `state_dict` of the model.
        given: What the recipe says of them.

    Raises:
        CheckpointError: A pattern of `rename` fits no name, or two names become one.
    """
    names = {name: _unwrapped(name, own) for name in weights}
    for pattern, replacement in (given.rename or {}).items():
        changed = {name: re.sub(pattern, replacement, now) for name, now in names.items()}
        if not any(re.search(pattern, now) for now in names.values()):
            raise CheckpointError(
                f"weights.rename: {shown(pattern)} fits no name in {given.file}, such as"
                f" {', '.join([*names.values()][:3])}"
            )
        names = changed
    found: dict[str, Tensor] = {}
    for name, now in names.items():
        if now in found:
            both = [old for old, new in names.items() if new == now]
            raise CheckpointError(
                f"weights.rename: {' and '.join(both)} in {given.file} both become {shown(now)}"
            )
        found[now] = weights[name]
    return found


def _unwrapped(name: str, own: Mapping[str, Tensor]) -> str:
    """A name without the wrappers before it or, of compiled parts, in it."""
    while name not in own and name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name if name in own else name.replace("._orig_mod.", ".")


def suggested_rename(
    strange: Mapping[str, torch.Size], missing: Mapping[str, torch.Size]
) -> dict[str, str]:
    """Patterns that would make names of a file those of a model, by their parts and shapes.

    Args:
        strange: Shapes in the file of what the model does not have.
        missing: Shapes in the model of what the file does not have.

    Returns:
        For `weights.rename`; empty where nothing fits.
    """
    theirs, ours = _by_first_part(strange), _by_first_part(missing)
    if len(theirs) == 1 and [*theirs.values()] == [frozenset(missing.items())]:
        return {f"^{re.escape(*theirs)}": ""}
    if len(ours) == 1 and [*ours.values()] == [frozenset(strange.items())]:
        return {"^": next(iter(ours))}
    of_contents: dict[Any, list[str]] = defaultdict(list)
    for first, contents in sorted(ours.items()):
        of_contents[contents].append(first)
    found = {}
    for first, contents in sorted(theirs.items()):
        if not of_contents[contents]:
            return {}
        found[f"^{re.escape(first)}"] = of_contents[contents].pop(0)
    return found


def _by_first_part(shapes: Mapping[str, torch.Size]) -> dict[str, Contents]:
    groups: dict[str, set[tuple[str, torch.Size]]] = defaultdict(set)
    for name, shape in shapes.items():
        first, dot, rest = name.partition(".")
        groups[first + dot].add((rest, shape))
    return {first: frozenset(contents) for first, contents in groups.items()}
