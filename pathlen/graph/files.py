"""Save and load path graphs: an .npz file of plain arrays and one JSON text, never pickle.

Members are stored, not deflated, and a file is refused otherwise, as is one that claims more bytes
than it has: so no file takes more memory than its size. The graph is built by the validating
constructor, so what loads is a path graph.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pathlen.errors import GraphFileError, PathlenError
from pathlen.graph.parts import DeadUnits, Layer, TraceInfo
from pathlen.json_text import read_json
from pathlen.printable import listed, shown
from pathlen.whole_files import open_to_read, replacing

if TYPE_CHECKING:
    from pathlen.graph.path_graph import PathGraph

FORMAT = "pathlen.PathGraph"
VERSION = 1

_TABLES = "tables"  # uint8: UTF-8 bytes of the JSON text
_ARRAYS = ("indptr", "indices", "activity", "kind", "layer")
_OPTIONAL = ("node_ids", "weights")


def save(graph: PathGraph, path: str | PathLike[str]) -> None:
    """See `PathGraph.save`."""
    info = graph.info
    tables = {
        "format": FORMAT,
        "version": VERSION,
        "layers": [[row.name, row.operation, row.first, row.count] for row in graph.layers],
        "info": None
        if info is None
        else {
            "tracer": info.tracer,
            "status": info.status,
            "causes": list(info.causes),
            "seconds": dict(info.seconds),
            "dead": [[row.layer, row.operation, list(row.indices), row.units] for row in info.dead],
        },
    }
    arrays = {name: getattr(graph, name) for name in _ARRAYS}
    for name in _OPTIONAL:
        if getattr(graph, name) is not None:
            arrays[name] = getattr(graph, name)
    arrays[_TABLES] = np.frombuffer(json.dumps(tables).encode(), dtype=np.uint8)
    with replacing(path) as file:
        np.savez(file, **arrays)


def built_from(path: str | PathLike[str], build: Callable[..., PathGraph]) -> PathGraph:
    """What `PathGraph.load` returns: its arrays and tables, given to the constructor."""
    try:
        with open_to_read(path) as file, zipfile.ZipFile(file) as archive:
            arrays = _read_members(archive, os.fstat(file.fileno()).st_size)
        tables = _tables(arrays.pop(_TABLES))
        layers = tuple(_layer(row) for row in _expect(tables["layers"], list, "layers"))
        return build(**arrays, layers=layers, info=_info(tables["info"]))
    except GraphFileError as error:
        raise GraphFileError(f"{os.fspath(path)}: {error}") from error
    except PathlenError as error:
        raise GraphFileError(f"{os.fspath(path)} holds no valid path graph: {error}") from error
    # What zipfile, numpy and json raise for bytes that are not what they should be.
    except (
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        OverflowError,
        NotImplementedError,
        RecursionError,
        RuntimeError,
    ) as error:
        raise GraphFileError(
            f"{os.fspath(path)} is truncated, altered or no saved path graph: "
            f"{type(error).__name__}: {error}"
        ) from error


def _read_members(archive: zipfile.ZipFile, length: int) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file of `length` bytes that holds exactly those of a path graph."""
    members = archive.infolist()
    names = sorted(member.filename.removesuffix(".npy") for member in members)
    wanted = sorted([*_ARRAYS, _TABLES])
    if sorted(set(names) - {*_OPTIONAL}) != wanted or len(set(names)) < len(names):
        raise GraphFileError(
            f"holds the members {listed(names)} instead of {wanted} and perhaps "
            f"{' and '.join(_OPTIONAL)}; it is no saved path graph, or of a newer version of "
            "pathlen"
        )
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise GraphFileError(
                f"member {shown(member.filename)} is compressed; save never does that"
            )
    if sum(max(member.file_size, member.compress_size) for member in members) > length:
        raise GraphFileError(f"its members claim more than the {length} bytes of the file")
    return {
        member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members
    }


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """One array, after checking that its header claims as many bytes as there are."""
    content = archive.read(member)  # checks the CRC; stored, so no larger than the file
    stream = io.BytesIO(content)
    shape, dtype = _header(stream)
    if dtype.hasobject or dtype.kind not in "iuf" or len(shape) != 1:
        raise GraphFileError(
            f"member {shown(member.filename)} is no plain list of numbers ({dtype})"
        )
    if shape[0] * dtype.itemsize != len(content) - stream.tell():
        raise GraphFileError(f"member {shown(member.filename)} does not have the length it claims")
    return np.frombuffer(content, dtype=dtype, offset=stream.tell())


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an .npy header claims; leaves the stream at the data."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise GraphFileError(f"holds an array of .npy version {version}; save writes (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype


def _tables(content: npt.NDArray[Any]) -> dict[str, Any]:
    """The JSON text, checked for format and version."""
    tables: dict[str, Any] = _expect(
        read_json(content.tobytes(), "the JSON text", GraphFileError), dict, "the JSON text"
    )
    if tables.get("format") != FORMAT:
        raise GraphFileError(f"format is {shown(tables.get('format'))} instead of {FORMAT!r}")
    if tables.get("version") != VERSION:
        raise GraphFileError(
            f"file version is {shown(tables.get('version'))}; this pathlen reads version"
            f" {VERSION}: install the pathlen that wrote it"
        )
    return tables


def _layer(row: Any) -> Layer:
    """A row of the layers table."""
    name, operation, first, count = _expect(row, list, "a layer")
    return Layer(
        _expect(name, str, "a layer's name"),
        _expect(operation, str, "a layer's operation"),
        _size(first),
        _size(count),
    )


def _info(fields: Any) -> TraceInfo | None:
    """Where a traced graph came from."""
    if fields is None:
        return None
    given: Mapping[str, Any] = _expect(fields, dict, "info")
    causes = [_expect(cause, str, "a cause") for cause in _expect(given["causes"], list, "causes")]
    seconds = _expect(given["seconds"], dict, "seconds")
    if not all(
        isinstance(value, int | float) and math.isfinite(value) for value in seconds.values()
    ):
        raise GraphFileError("seconds must be finite numbers")
    return TraceInfo(
        _expect(given["tracer"], str, "tracer"),
        _expect(given["status"], str, "status"),
        tuple(causes),
        seconds,
        tuple(map(_dead_units, _expect(given.get("dead", []), list, "dead"))),
    )


def _dead_units(row: Any) -> DeadUnits:
    """The dead units of a layer."""
    layer, operation, indices, units = _expect(row, list, "a layer's dead units")
    return DeadUnits(
        _expect(layer, str, "a layer's name"),
        _expect(operation, str, "a layer's operation"),
        tuple(map(_size, _expect(indices, list, "indices of dead units"))),
        _size(units),
    )


def _size(value: Any) -> int:
    """A node id or count that fits int64."""
    number: int = _expect(value, int, "a node id or count")
    if isinstance(value, bool) or not 0 <= number < 2**63:
        raise GraphFileError(f"a node id or count must lie in [0, 2**63), not {shown(number)}")
    return number


def _expect(value: Any, kind: type, what: str) -> Any:
    """A JSON value of the type it must have."""
    if not isinstance(value, kind):
        raise GraphFileError(f"{what} must be of type {kind.__name__}, not {shown(value, 60)}")
    return value
