"""YAML from elsewhere: plain values only, read with limits on size, depth and aliases.

A few hundred bytes of YAML can stand for gigabytes, by aliases of lists of aliases, and nesting or
digits without end stop Python's own machinery. So nodes are counted while the text is read, each
alias with all that it stands for, and reading ends at the first one too many.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from pathlen.errors import SettingsError
from pathlen.printable import shown

LONGEST = 1 << 18
"""Characters of a text. The longest recipe that comes with pathlen has 1,100."""

MOST_VALUES = 20_000
"""Values, keys among them, with aliases written out."""

DEEPEST = 32
"""Levels of lists and mappings in each other."""

LONGEST_NUMBER = 64
"""Characters of a number."""


def read_yaml_text(text: str, where: str) -> Any:
    """Read a YAML text of plain values.

    Args:
        text: As it is in the file.
        where: What messages call it.

    Raises:
        SettingsError: It is too large or too deep, is not valid YAML, has a key twice or one that
            is no text, or holds something else than texts, numbers, true, false, null, lists and
            mappings.
    """
    if len(text) > LONGEST:
        raise SettingsError(
            f"{where} has {len(text):,} characters; settings have no more than {LONGEST:,}"
        )
    try:
        return _unshared(yaml.load(text, _Loader))
    except (yaml.YAMLError, ValueError) as error:  # of Python, as of "\\U00110000"
        raise SettingsError(f"{where} is not valid YAML: {error}") from error


def _unshared(value: Any) -> Any:
    """The same without aliases, so that a change in one place changes no other."""
    if isinstance(value, dict):
        return {key: _unshared(part) for key, part in value.items()}
    return [_unshared(part) for part in value] if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 does (PyYAML wants 1.0e-4); a date is a text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = self._deepest = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # of nodes with an anchor: values, levels

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Read the next node, and count it."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                self._refuse("a value is an alias of what it lies in", event)
            values, levels = self._sizes[id(node)]
            self._count(values, self._depth + levels, event)
            return node
        values, deepest = self._values, self._deepest
        self._depth += 1
        self._deepest = self._depth
        self._count(1, self._depth, event)
        node = super().compose_node(parent, index)
        if node is not None and event.anchor is not None:
            self._sizes[id(node)] = self._values - values, self._deepest - self._depth + 1
        self._depth -= 1
        self._deepest = max(self._deepest, deepest)
        return node

    def _count(self, values: int, depth: int, event: Any) -> None:
        self._values += values
        self._deepest = max(self._deepest, depth)
        if self._values > MOST_VALUES:
            self._refuse(f"it holds more than {MOST_VALUES:,} values, aliases written out", event)
        if self._deepest > DEEPEST:
            self._refuse(f"it is nested more than {DEEPEST} levels deep", event)

    def _refuse(self, problem: str, event: Any) -> None:
        raise ConstructorError(None, None, problem, event.start_mark)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; PyYAML would keep the last of two values of a key and drop the first."""
        if not isinstance(node, MappingNode):
            raise ConstructorError(None, None, "this is no mapping", node.start_mark)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise ConstructorError(None, None, "a key is no text", key.start_mark)
            if key.value in seen:
                problem = f"the key {shown(key.value)} is given twice"
                raise ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        found = super().construct_mapping(node, deep)
        for key in found:
            if not isinstance(key, str):
                problem = f"the key {shown(key)} is no text; put it in quotes"
                raise ConstructorError(None, None, problem, node.start_mark)
        return found

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node; what Python says of a wrong one is told with its place."""
        if isinstance(node, ScalarNode) and node.tag in _NUMBERS and _too_long(node.value):
            problem = f"a number of {len(node.value)} characters is no setting"
            raise ConstructorError(None, None, problem, node.start_mark)
        if isinstance(node, ScalarNode) and node.tag in _NUMBERS and _OTHERWISE.match(node.value):
            problem = (
                f"{shown(node.value, 40)} is another number in YAML 1.1 (of base 8, or 60) than it"
                " looks like; write it without colons and leading zeros, or a text in quotes"
            )
            raise ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, OverflowError) as error:  # as of "!!int x"
            problem = f"this is no value of the type {shown(node.tag)}: {error}"
            raise ConstructorError(None, None, problem, node.start_mark) from error


def _too_long(number: str) -> bool:
    return len(number) > LONGEST_NUMBER


_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_OTHERWISE = re.compile(r"[-+]?(0[0-9_]|[0-9_.]+:)")
_DATE = "tag:yaml.org,2002:timestamp"

_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in _Loader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN
}
