"""Saved path graphs: round trips, and files that are not what they claim."""

import dataclasses
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pathlen.errors import GraphFileError
from pathlen.graph.path_graph import Layer, PathGraph, TraceInfo
from tests.path_graphs import RandomGraph, figure_1, random_graphs

INFO = TraceInfo(
    "eager recorder", "bound", ("aten::sort: \u00e9\ud800",), {"trace": 0.25, "lower": 1}
)


def traced() -> PathGraph:
    return dataclasses.replace(figure_1(), info=INFO, node_ids=None)


def assert_same(graph: PathGraph, other: PathGraph) -> None:
    for name in ("indptr", "indices", "activity", "kind", "layer", "node_ids"):
        one, two = getattr(graph, name), getattr(other, name)
        if one is None or two is None:
            assert one is two, name
        else:
            assert one.dtype == two.dtype, name
            assert np.array_equal(one, two), name
    assert graph.layers == other.layers
    assert graph.info == other.info


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=random_graphs(), traced=st.booleans(), name=st.text())
def test_round_trip(tmp_path: Path, case: RandomGraph, traced: bool, name: str) -> None:
    graph = case.build()
    if traced:
        layers = (dataclasses.replace(graph.layers[0], name=name + "#"), *graph.layers[1:])
        graph = dataclasses.replace(graph, layers=layers, node_ids=None, info=INFO)
    graph.save(tmp_path / "graph.npz")
    assert_same(graph, PathGraph.load(tmp_path / "graph.npz"))
    assert os.listdir(tmp_path) == ["graph.npz"]


def test_the_name_is_taken_as_it_is(tmp_path: Path) -> None:
    figure_1().save(str(tmp_path / "graph"))
    assert os.listdir(tmp_path) == ["graph"]
    with np.load(tmp_path / "graph", allow_pickle=False) as arrays:
        assert set(arrays) == {
            *("indptr", "indices", "activity", "kind", "layer"),
            "node_ids",
            "tables",
        }


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.npz"
    figure_1().save(path)

    def full_disk(file: io.BufferedWriter, **_: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        traced().save(path)
    assert os.listdir(tmp_path) == ["graph.npz"]
    assert_same(figure_1(), PathGraph.load(path))


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PathGraph.load(tmp_path / "none.npz")


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes]:
    """The members of a saved graph."""
    traced().save(tmp_path / "good.npz")
    with zipfile.ZipFile(tmp_path / "good.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def refused(tmp_path: Path, members: dict[str, bytes], message: str, method: int = 0) -> None:
    """Write the members as a file that load must refuse."""
    with zipfile.ZipFile(tmp_path / "bad.npz", "w", compression=method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(GraphFileError, match=message) as caught:
        PathGraph.load(tmp_path / "bad.npz")
    assert "bad.npz" in str(caught.value)


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), **options)
    return stream.getvalue()


def tables(**change: Any) -> bytes:
    """The JSON member with some entries replaced."""
    text: dict[str, Any] = {
        "format": "pathlen.PathGraph",
        "version": 1,
        "layers": [[row.name, row.operation, row.first, row.count] for row in traced().layers],
        "info": None,
    }
    return npy(np.frombuffer(json.dumps(text | change).encode(), dtype=np.uint8))


def test_the_helpers_write_what_loads(tmp_path: Path, members: dict[str, bytes]) -> None:
    members["tables.npy"] = tables()
    with zipfile.ZipFile(tmp_path / "good.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert PathGraph.load(tmp_path / "good.npz").info is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = tmp_path / "graph.npz"
    traced().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(GraphFileError, match="truncated, altered or no saved path graph"):
        PathGraph.load(path)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_altered_bytes_never_load_as_another_graph(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "graph.npz"
    traced().save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        graph = PathGraph.load(path)
    except GraphFileError:
        return
    assert_same(graph, traced())  # a byte that carries nothing, such as a time stamp


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_pickles_are_never_loaded(tmp_path: Path, members: dict[str, bytes]) -> None:
    bomb = Bomb(tmp_path / "exploded")
    content = npy(np.array([bomb], dtype=object), allow_pickle=True)
    refused(tmp_path, members | {"activity.npy": content}, "is no plain list of numbers")
    (tmp_path / "bad.npz").write_bytes(pickle.dumps(bomb))
    with pytest.raises(GraphFileError, match="no saved path graph"):
        PathGraph.load(tmp_path / "bad.npz")
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(GraphFileError, match="no saved path graph"):
        PathGraph.load(tmp_path / "bad.npz")
    assert not (tmp_path / "exploded").exists()


def test_compressed_members_are_refused(tmp_path: Path, members: dict[str, bytes]) -> None:
    bomb = members | {"activity.npy": npy(np.zeros(10**6))}
    refused(tmp_path, bomb, "is compressed; save never does that", zipfile.ZIP_DEFLATED)


def test_a_header_that_claims_too_much(tmp_path: Path, members: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(stream, header)
    refused(tmp_path, members | {"activity.npy": stream.getvalue()}, "the length it claims")


def test_members_that_claim_more_than_the_file(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        size = archive.getinfo("activity.npy").file_size
    content = path.read_bytes()
    sizes = size.to_bytes(4, "little") * 2
    assert content.count(sizes) >= 2
    path.write_bytes(content.replace(sizes, (2**31 - 2).to_bytes(4, "little") * 2))
    with pytest.raises(GraphFileError, match=r"claim more than the .* bytes of the file"):
        PathGraph.load(path)


@pytest.mark.parametrize("name", ["indptr", "indices", "activity", "kind", "layer", "tables"])
def test_missing_member(tmp_path: Path, members: dict[str, bytes], name: str) -> None:
    del members[f"{name}.npy"]
    refused(tmp_path, members, r"holds the members .* instead of")


def test_member_of_a_newer_version(tmp_path: Path, members: dict[str, bytes]) -> None:
    refused(tmp_path, members | {"lengths.npy": npy([1.0])}, "of a newer version of pathlen")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_member_twice(tmp_path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name, content in [*members.items(), ("kind.npy", members["kind.npy"])]:
            archive.writestr(name, content)
    with pytest.raises(GraphFileError, match="holds the members"):
        PathGraph.load(tmp_path / "bad.npz")


def test_encrypted_members(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    altered = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        altered[altered.index(signature) + offset] |= 1
    path.write_bytes(altered)
    with pytest.raises(GraphFileError, match="encrypted"):
        PathGraph.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "file version is 2; this pathlen reads version 1"),
        ({"version": None}, "file version is None"),
        ({"format": "other"}, "format is 'other'"),
        ({"layers": {}}, "layers must be of type list"),
        ({"layers": [1]}, "a layer must be of type list"),
        ({"layers": [["x", "input", 0]]}, "not enough values"),
        ({"layers": [["x", "input", 0, 2**70]]}, r"in \[0, 2\*\*63\)"),
        ({"layers": [["x", "input", -1, 1]]}, r"in \[0, 2\*\*63\)"),
        ({"layers": [["x", "input", 0, 1.5]]}, "of type int"),
        ({"layers": [["x", "input", 0, True]]}, r"in \[0, 2\*\*63\)"),
        ({"layers": [[0, "input", 0, 1]]}, "name must be of type str"),
        ({"layers": [["x", "input", 0, 1]]}, "holds no valid path graph"),
        ({"info": 3}, "info must be of type dict"),
        ({"info": {}}, "KeyError"),
        ({"info": {"tracer": "t", "status": "good", "causes": [], "seconds": {}}}, "'good'"),
        ({"info": {"tracer": "t", "status": "exact", "causes": [1], "seconds": {}}}, "a cause"),
        ({"info": {"tracer": "t", "status": "exact", "causes": [], "seconds": {"a": "b"}}},
         "must be finite"),
        ({"info": {"tracer": "t", "status": "exact", "causes": [], "seconds": {"a": 1e999}}},
         "must be finite"),
    ],
)  # fmt: skip
def test_bad_tables(
    tmp_path: Path, members: dict[str, bytes], change: dict[str, Any], message: str
) -> None:
    refused(tmp_path, members | {"tables.npy": tables(**change)}, message)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff\xff", b"[" * 100_000, b'{"a": ' * 100_000, b"1" * 10_000]
)
def test_bad_json(tmp_path: Path, members: dict[str, bytes], text: bytes) -> None:
    content = npy(np.frombuffer(text, dtype=np.uint8))
    refused(tmp_path, members | {"tables.npy": content}, "bad.npz")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("activity", np.full(23, np.nan), "must be finite"),
        ("activity", np.zeros((23, 1)), "no plain list of numbers"),
        ("activity", np.zeros(23, dtype="M8[s]"), "no plain list of numbers"),
        ("activity", np.zeros(23, dtype=[("a", "f8")]), "no plain list of numbers"),
        ("indices", np.zeros(3, dtype=np.int32), "indptr must rise"),
        ("indices", np.zeros(3), "must hold int32"),
        ("indptr", np.array([], dtype=np.int64), "indptr has 0 entries"),
        ("kind", np.zeros(23, dtype=np.uint8), "there is no output node"),
    ],
)
def test_bad_arrays(
    tmp_path: Path, members: dict[str, bytes], name: str, array: Any, message: str
) -> None:
    assert traced().num_nodes == 23
    refused(tmp_path, members | {f"{name}.npy": npy(array)}, message)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x03\x00" + b"\xff" * 60, b"no"])
def test_bad_npy(tmp_path: Path, members: dict[str, bytes], content: bytes) -> None:
    refused(tmp_path, members | {"kind.npy": content}, "bad.npz")


def test_foreign_byte_order_loads(tmp_path: Path, members: dict[str, bytes]) -> None:
    graph = traced()
    members["activity.npy"] = npy(graph.activity.astype(">f8"))
    with zipfile.ZipFile(tmp_path / "graph.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert_same(graph, PathGraph.load(tmp_path / "graph.npz"))


def test_layer_is_what_was_written(tmp_path: Path) -> None:
    graph = figure_1()
    graph.save(tmp_path / "graph.npz")
    assert PathGraph.load(tmp_path / "graph.npz").layers[0] == Layer("inputs", "input", 0, 1)
