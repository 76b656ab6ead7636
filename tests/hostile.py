"""Hostile .pt2 files: made node by node, as the text of a program, which torch would not write.

`written` starts from a saved program with a layer, an activation with slopes, an index and a
factor, and puts calls of its own before one of these constants. `calls_of_schemas` and
`calls_by_hand` make such calls. `Watch` sees whatever happens to the files of a folder.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

ROLES = ("slope", "index", "factor", "weight")
_SIZES = {"slope": [4], "index": [4], "factor": [4], "weight": [4, 4]}
_LONG, _FLOAT = 5, 7  # dtypes, as they are saved


class _Victim(nn.Module):
    """Its constants are evaluated: slopes, an index, a factor, a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("slope", torch.full((4,), 0.25))
        self.register_buffer("index", torch.arange(4))
        self.register_buffer("factor", torch.ones(4))
        self.register_buffer("weight", torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.prelu(self.layer(x), self.slope).index_select(1, self.index) * self.factor
        return torch.relu(torch.nn.functional.linear(y, self.weight))


@cache
def _members() -> dict[str, bytes]:
    program = torch.export.export(_Victim(), (torch.randn(2, 4),), strict=False)
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@dataclass(frozen=True)
class Call:
    """A call in the text of a program.

    Attributes:
        target: what is called, as it stands there.
        args: by name; `Name` stands for a tensor.
        size: of the result, as the file claims it.
    """

    target: str
    args: tuple[tuple[str, Any], ...] = ()
    size: tuple[int, ...] = (4,)


class Name(str):
    """A tensor among the arguments of a call: a placeholder, or "h0", "h1", ... of calls before."""


class Raw(dict):  # type: ignore[type-arg]
    """An argument as it stands in the text."""


def argument(value: Any) -> dict[str, Any]:
    """An argument as it is saved."""
    if isinstance(value, Raw):
        return dict(value)
    if isinstance(value, Name):
        return {"as_tensor": {"name": str(value)}}
    if isinstance(value, list):
        if value and all(isinstance(item, Name) for item in value):
            return {"as_tensors": [{"name": str(item)} for item in value]}
        kind = "as_floats" if any(isinstance(item, float) for item in value) else "as_ints"
        kind = "as_bools" if value and isinstance(value[0], bool) else kind
        return {kind: value}
    kinds = {bool: "as_bool", int: "as_int", float: "as_float", str: "as_string"}
    return {"as_none": True} if value is None else {kinds[type(value)]: value}


def meta(size: Sequence[int], dtype: int = _FLOAT) -> dict[str, Any]:
    """What a file says of a tensor."""
    strides, step = [], 1
    for length in reversed(size):
        strides.insert(0, step)
        step *= max(length, 1)
    return {
        "dtype": dtype,
        "sizes": [{"as_int": length} for length in size],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": stride} for stride in strides],
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }


def written(
    path: Path,
    calls: Sequence[Call] = (),
    role: str = "slope",
    change: Callable[[str, bytes], bytes] | None = None,
) -> Path:
    """Write a file in which calls make the constant of a role.

    Args:
        path: of the file.
        calls: in order; the last one's result takes the place of the constant.
        role: one of `ROLES`.
        change: changes the content of a member, given its name.
    """
    members = dict(_members())
    name = next(name for name in members if name.endswith("models/model.json"))
    program = json.loads(members[name])
    splice(program["graph_module"]["graph"], calls, role)
    members[name] = json.dumps(program).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, change(member, content) if change else content)
    return path


def splice(graph: Any, calls: Sequence[Call], role: str) -> None:
    """Put calls at the beginning of a graph, and their result in the place of a constant."""
    dtype = _LONG if role == "index" else _FLOAT
    nodes = []
    for number, call in enumerate(calls):
        inputs = [{"name": n, "arg": argument(v), "kind": 1} for n, v in call.args]
        last = number == len(calls) - 1
        graph["tensor_values"][f"h{number}"] = meta(_SIZES[role] if last else call.size, dtype)
        nodes.append(
            {
                "target": call.target,
                "inputs": inputs,
                "outputs": [{"as_tensor": {"name": f"h{number}"}}],
                "metadata": {},
                "is_hop_single_tensor_return": None,
                "name": f"h{number}",
            }
        )
    if calls:
        for node in graph["nodes"]:
            for entry in node["inputs"]:
                if entry["arg"] == {"as_tensor": {"name": f"b_{role}"}}:
                    entry["arg"] = argument(Name(f"h{len(calls) - 1}"))
    graph["nodes"] = nodes + graph["nodes"]


def _value_of(kind: str, name: str, role: str, sentinel: str) -> Any:
    """Some value for an argument of a type, the one that would hurt most."""
    if "List[Tensor" in kind or "List[Optional[Tensor" in kind:
        return [Name(f"b_{role}")]
    if "Tensor" in kind:
        return Name(f"b_{role}")
    if "str" in kind:
        return sentinel
    if "List[int" in kind:
        return [4]
    if "List[float" in kind or "List[number" in kind:
        return [0.5]
    if "List[bool" in kind:
        return [True]
    if "int" in kind:
        return 4 if name in ("size", "n", "end", "high", "num_samples") else 0
    if "bool" in kind:
        return name == "shared"
    return 0.5


def calls_of_schemas(role: str, sentinel: str) -> Iterator[tuple[str, list[Call]]]:
    """A program for each operator of torch that takes a text, a generator or memory, or writes."""
    for schema in torch._C._jit_get_all_schemas():
        types = {str(argument.type) for argument in schema.arguments}
        odd = any(
            word in kind
            for kind in types
            for word in ("str", "Generator", "Storage", "Stream", "Any", "torch.classes", "Future")
        )
        is_torch = schema.name.partition("::")[0] in ("aten", "prims")
        if is_torch and not (odd or schema.is_mutable or not schema.returns):
            continue
        args = tuple(
            (a.name, _value_of(str(a.type), a.name, role, sentinel))
            for a in schema.arguments
            if not a.has_default_value() or a.is_out or "Generator" in str(a.type)
        )
        name = schema.name.replace("::", ".")
        overload = schema.overload_name or "default"
        made = Call(f"torch.ops.{name}.{overload}", args)
        yield f"{name}.{overload}", [made, *_write(Name("h0"), role)]


def _write(name: Name, role: str) -> list[Call]:
    """A write in place, as would reach a file that is mapped into memory."""
    value = 1 if role == "index" else 0.75
    written_ = (("self", name), ("value", value))
    return [Call("torch.ops.aten.fill_.Scalar", written_)]


def _chain(target: str, first: str, count: int, **arguments: Any) -> list[Call]:
    names = [first, *(f"h{number}" for number in range(count))]
    return [
        Call(target, (("self", Name(names[number])), *arguments.items())) for number in range(count)
    ]


def calls_by_hand(role: str, sentinel: str) -> Iterator[tuple[str, list[Call]]]:
    """Programs that write files, read memory, take all of it, never end, or call Python."""
    own = Name(f"b_{role}")
    aten = "torch.ops.aten."
    mapped = Call(
        f"{aten}from_file.default", (("filename", sentinel), ("shared", True), ("size", 4))
    )
    yield "from_file", [mapped]
    yield "from_file, written to", [mapped, *_write(Name("h0"), role)]
    yield (
        "from_file, a view written to",
        [
            mapped,
            Call(f"{aten}view.default", (("self", Name("h0")), ("size", [4]))),
            *_write(Name("h1"), role),
        ],
    )
    for size in (10**9, 10**12, 2**62):
        yield f"full {size}", [Call(f"{aten}full.default", (("size", [size]), ("fill_value", 1)))]
        yield f"zeros {size}", [Call(f"{aten}zeros.default", (("size", [size]),))]
        yield f"arange {size}", [Call(f"{aten}arange.default", (("end", size),))]
        yield f"eye {size}", [Call(f"{aten}eye.default", (("n", size),))]
        strided = (("size", [2]), ("stride", [size]))
        yield f"empty_strided {size}", [Call(f"{aten}empty_strided.default", strided)]
        grown = (("self", own), ("repeats", [size]))
        yield f"repeat {size}", [Call(f"{aten}repeat.default", grown)]
        padded = (("self", own), ("pad", [0, size]))
        yield f"pad {size}", [Call(f"{aten}constant_pad_nd.default", padded)]
        far = (("self", own), ("size", [4]), ("stride", [1]), ("storage_offset", size))
        for name in ("as_strided", "as_strided_copy", "_reshape_alias"):
            yield (
                f"{name} {size}",
                [Call(f"{aten}{name}.default", far[: 3 if "alias" in name else 4])],
            )
        wide = (("self", own), ("size", [size, 4]))
        yield (
            f"expand {size}, clone",
            [
                Call(f"{aten}expand.default", wide, (size, 4)),
                Call(f"{aten}clone.default", (("self", Name("h0")),)),
            ],
        )
        yield (
            f"bincount {size}",
            [
                Call(f"{aten}full.default", (("size", [1]), ("fill_value", size))),
                Call(f"{aten}_to_copy.default", (("self", Name("h0")), ("dtype", _dtype(_LONG)))),
                Call(f"{aten}bincount.default", (("self", Name("h1")),)),
            ],
        )
        yield (
            f"repeat_interleave {size}",
            [
                Call(f"{aten}full.default", (("size", [1]), ("fill_value", size))),
                Call(f"{aten}_to_copy.default", (("self", Name("h0")), ("dtype", _dtype(_LONG)))),
                Call(f"{aten}repeat_interleave.Tensor", (("repeats", Name("h1")),)),
            ],
        )
    for repeats in (20, 40, 60):
        yield f"{repeats} doublings", _chain(f"{aten}repeat.default", own, repeats, repeats=[2])
    for count in (50, 500, 2000):
        yield f"{count} views", _chain(f"{aten}view.default", own, count, size=[4])
        yield f"{count} copies", _chain(f"{aten}clone.default", own, count)
    square = Call(f"{aten}ones.default", (("size", [20_000, 20_000]),), (20_000, 20_000))
    product = (("self", Name("h0")), ("mat2", Name("h0")))
    yield "matrix product", [square, Call(f"{aten}mm.default", product)]
    thin = Call(f"{aten}expand.default", (("self", Name("h0")), ("size", [30_000, 30_000])))
    yield (
        "matrix product of views",
        [
            Call(f"{aten}ones.default", (("size", [1, 1]),), (1, 1)),
            thin,
            Call(f"{aten}mm.default", (("self", Name("h1")), ("mat2", Name("h1")))),
        ],
    )
    yield (
        "polynomial of high degree",
        [
            Call(
                f"{aten}special_hermite_polynomial_h.n_scalar",
                (("x", own), ("n", 10**15)),
            )
        ],
    )
    yield (
        "zeta far to the left",
        [
            Call(f"{aten}full.default", (("size", [4]), ("fill_value", -1e15 + 0.5))),
            Call(f"{aten}special_zeta.self_scalar", (("self", 3.0), ("other", Name("h0")))),
        ],
    )
    for target in _PYTHON:
        yield f"Python {target}", [Call(target, (("", sentinel),))]
        yield f"Python {target}, on a tensor", [Call(target, (("", own),))]
    for target, args in _NUMBERS:
        yield f"number {target}", [Call(target, args)]
    for name in ("print", "triton_kernel_wrapper_mutation", "call_torchbind", "with_effects"):
        target = f"torch.ops.higher_order.{name}"
        yield f"function {name}", [Call(target, (("", sentinel), ("", own)))]
    yield (
        "a text as a mode",
        [
            Call(
                f"{aten}div.Tensor_mode",
                (("self", own), ("other", own), ("rounding_mode", sentinel)),
            )
        ],
    )
    yield (
        "a text as an equation",
        [Call(f"{aten}einsum.default", (("equation", f"i->{sentinel}"), ("tensors", [own])))],
    )


def _dtype(number: int) -> Raw:
    return Raw(as_scalar_type=number)


_PYTHON = (
    "torch.os.system",
    "torch.os.popen",
    "torch.os.remove",
    "torch.os.mkdir",
    "torch.sys.exit",
    "torch.load",
    "torch.save",
    "torch.from_file",
    "torch.hub.load",
    "torch.hub.os.system",
    "torch.ops.load_library",
    "torch.classes.load_library",
    "torch.utils.cpp_extension.load",
    "torch.utils.data.dataset.Path",
    "torch.jit.load",
    "torch.compile",
    "torch.set_default_dtype",
    "torch.manual_seed",
    "torch.use_deterministic_algorithms",
    "torch.serialization.pickle.loads",
    "torch._C._jit_pass_lint",
    "torch.import_ir_module",
    "torch.builtins.exec",
    "torch.builtins.open",
    "torch.builtins.__import__",
    "torch.importlib.import_module",
    "torch.inspect.os.system",
    "_operator.attrgetter",
    "_operator.methodcaller",
    "_operator.itemgetter",
    "_operator.call",
    "_operator.setitem",
    "_operator.delitem",
    "_operator.iadd",
    "math.factorial",
    "math.__loader__.load_module",
    "os.system",
    "builtins.eval",
    "#executorch:run",
)

_NUMBERS = (
    ("_operator.pow", (("", 9), ("", 10**9))),
    ("_operator.lshift", (("", 1), ("", 10**12))),
    ("_operator.mul", (("", "text"), ("", 10**12))),
    ("_operator.add", (("", "a"), ("", "b"))),
    ("math.ceil", (("", 1e308),)),
)


class Watch:
    """Sees whatever happens to the files of a folder, by the kernel of Linux.

    Args:
        folder: with files; those below are not watched.
    """

    _EVENTS: ClassVar[dict[int, str]] = {
        0x1: "read",
        0x2: "written to",
        0x4: "changed in its attributes",
        0x20: "opened",
        0x40: "moved away",
        0x80: "moved here",
        0x100: "created",
        0x200: "deleted",
    }
    """Of inotify."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._file = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self._file, os.fsencode(folder), sum(self._EVENTS))

    def seen(self) -> set[str]:
        """What happened since it was asked last: "NAME created", ..."""
        found = set()
        while True:
            try:
                events = os.read(self._file, 1 << 16)
            except BlockingIOError:
                return found
            while events:
                _, mask, _, length = struct.unpack_from("iIII", events)
                name = events[16 : 16 + length].rstrip(b"\0").decode()
                words = [word for bit, word in self._EVENTS.items() if mask & bit]
                found |= {f"{name} {word}" for word in words}
                events = events[16 + length :]

    def close(self) -> None:
        """Watch no more."""
        os.close(self._file)


@contextmanager
def audited(events: list[str]) -> Iterator[None]:
    """Collects what Python is told of sockets, processes and changes of files inside the block."""
    running = [True]
    prefixes = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")
    changes = (
        "os.remove",
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.symlink",
        "os.link",
        "os.chmod",
    )

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not running[0]:
            return
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if event.startswith(prefixes) or event in changes or writes:
            events.append(f"{event} {args!r}"[:200])

    sys.addaudithook(hook)  # stays for the process, but is silent after the block
    try:
        yield
    finally:
        running[0] = False
