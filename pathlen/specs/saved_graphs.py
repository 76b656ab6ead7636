"""The text of a saved program, checked before torch makes anything of it.

torch looks up what a program calls by its name anywhere in torch, imports modules that the nest of
its inputs names, and writes names into code that it runs. So a text is let through only if it names
operators and functions of sizes, if its names are names, and if its numbers have 64 bits. What
pathlen does not need (guards, traces of the stack) is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pathlen.specs.saved_sizes import SYMBOL, is_arithmetic

MOST_TEXT = 128 << 20
"""Bytes of the text of a program."""

MOST_LETTERS_OF_SIZES = 20_000_000
_MOST_DEPTH = 100
_OPERATOR = re.compile(r"torch\.ops\.[a-z_]\w*\.[A-Za-z_]\w*(\.\w+)?")
_TAKING_FUNCTIONS = "torch.ops.higher_order."
_FACTORIES = ("list", "dict", "set", "tuple", "int", "float", "str")
_DIALECTS = ("ATEN", "TRAINING", "")
_REFUSED_KINDS = ("as_custom_obj", "custom_obj", "as_operator")
_KEPT = ("nn_module_stack",)


def read_json(content: bytes) -> Any:
    """Read JSON as torch does, if it is no deeper and has no larger numbers than it needs.

    Raises:
        ValueError: it has, or it is no JSON.
    """
    if len(content) > MOST_TEXT:
        raise ValueError(f"its text has {len(content):,} bytes, more than {MOST_TEXT:,}")
    tree = json.loads(content.decode("utf-8"))
    waiting = [(tree, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _MOST_DEPTH:
            raise ValueError(f"it is nested more than {_MOST_DEPTH} levels deep")
        if isinstance(item, dict):
            waiting += [(value, depth + 1) for value in item.values()]
        elif isinstance(item, list):
            waiting += [(value, depth + 1) for value in item]
        elif isinstance(item, int) and item.bit_length() > 64:
            raise ValueError("it has a number of more than 64 bits")
    return tree


def checked_program(tree: Any) -> tuple[Any, str | None]:
    """A program's text with what is needed, and why it is refused, if it is."""
    from pathlen.tracing.guard import MOST_CALLS

    module = tree["graph_module"]
    tree["guards_code"] = []
    module["metadata"] = {}
    module["treespec_namedtuple_fields"] = {}
    graphs = [module["graph"], *_values_of("graph", module["graph"])]
    calls = 0
    for graph in graphs:
        calls += len(graph["nodes"])
        for node in graph["nodes"]:
            kept = node["metadata"]
            node["metadata"] = {key: kept[key] for key in _KEPT if key in kept}
    if calls > MOST_CALLS:
        return tree, f"has {calls:,} calls, more than {MOST_CALLS:,}"
    reasons = (
        _reason_against_kinds(tree),
        _reason_against_targets(graphs),
        _reason_against_sizes(tree),
        _reason_against_names(module),
        _reason_against_nests(module),
    )
    return tree, next((reason for reason in reasons if reason is not None), None)


def _reason_against_kinds(tree: Any) -> str | None:
    for dialect in tree["verifiers"]:
        if dialect not in _DIALECTS:
            return f"is of the dialect {str(dialect)[:60]!r}"
    module = tree["graph_module"]
    for kind in _REFUSED_KINDS:
        if next(_values_of(kind, module), None) is not None:
            return f"holds a {kind.removeprefix('as_').replace('_', ' ')}"
    if any(_values_of("custom_obj_values", module)):
        return "holds custom objects"
    return None


def _reason_against_targets(graphs: list[Any]) -> str | None:
    from pathlen.tracing.checked import BATCHES, NUMBERS
    from pathlen.tracing.control_flow import KNOWN

    for target in dict.fromkeys(str(node["target"]) for graph in graphs for node in graph["nodes"]):
        is_operator = _OPERATOR.fullmatch(target) is not None
        takes_functions = target.startswith(_TAKING_FUNCTIONS)
        if takes_functions and target.removeprefix(_TAKING_FUNCTIONS) not in KNOWN:
            return f"calls {target[:60]!r}, which takes functions in a way that is not known"
        if not (is_operator or target in NUMBERS or target in BATCHES):
            return f"calls {target[:60]!r}, which is no operator"
    return None


def _reason_against_sizes(tree: Any) -> str | None:
    texts = [str(text) for text in _values_of("expr_str", tree)]
    if sum(map(len, texts)) > MOST_LETTERS_OF_SIZES:
        return f"has sizes of more than {MOST_LETTERS_OF_SIZES:,} letters"
    for text in dict.fromkeys(texts):
        if not is_arithmetic(text):
            return f"has the size {text[:60]!r}, which is more than arithmetic"
    for symbol in tree["range_constraints"]:
        if not SYMBOL.fullmatch(symbol):
            return f"has the size {symbol[:60]!r}, which is no name of a size"
    return None


def _reason_against_names(module: Any) -> str | None:
    from pathlen.tracing.checked import PLACE

    for key in ("name", "as_name"):
        for name in _values_of(key, module):
            if isinstance(name, str) and name and not _is_name(name):
                return f"has the name {name[:60]!r}, which is no identifier"
    for names in _values_of("forward_arg_names", module):
        for name in names or ():
            if not _is_name(name):
                return f"has the name {str(name)[:60]!r}, which is no identifier"
    keys = ("parameter_name", "buffer_name", "tensor_constant_name", "user_input_name", "fqn")
    for key in keys:
        for name in _values_of(key, module):
            if not isinstance(name, str) or PLACE.fullmatch(name) is None:
                return f"has the {key.replace('_', ' ')} {str(name)[:60]!r}"
    return None


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier()


def _reason_against_nests(module: Any) -> str | None:
    """Why the nest of inputs or outputs is refused: it names Python objects to import."""
    for key in ("in_spec", "out_spec"):
        for text in _values_of(key, module):
            if not text:
                continue
            _, nest = read_json(str(text).encode())
            for reason in map(_reason_against_nest, _nests(nest)):
                if reason is not None:
                    return reason
            if key == "in_spec" and (reason := _reason_against_keywords(nest)) is not None:
                return reason
    return None


def _nests(nest: Any) -> Iterator[Any]:
    """A nest and all nests in it; `read_json` has seen to its depth."""
    waiting = [nest]
    while waiting:
        item = waiting.pop()
        yield item
        waiting += item["children_spec"]


def _context(nest: Any) -> Any:
    text = nest["context"]
    return read_json(text.encode()) if isinstance(text, str) and _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _reason_against_nest(nest: Any) -> str | None:
    context = _context(nest)
    if next(_values_of("__enum__", context), None) is not None:
        return "has inputs or outputs that name a Python object to import"
    for module in _values_of("default_factory_module", context):
        if module != "builtins":
            return f"has inputs or outputs that name the module {str(module)[:60]!r}"
    for name in _values_of("default_factory_name", context):
        if name not in _FACTORIES:
            return f"has inputs or outputs that name the function {str(name)[:60]!r}"
    return None


def _reason_against_keywords(nest: Any) -> str | None:
    """Why the keyword arguments are refused, whose names stand in code."""
    if len(nest["children_spec"]) != 2:
        return None
    keywords = _context(nest["children_spec"][1])
    for name in keywords if isinstance(keywords, list) else ():
        if isinstance(name, str) and not name.isidentifier():
            return f"has the keyword argument {name[:60]!r}, which is no identifier"
    return None


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
