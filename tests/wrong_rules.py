"""Rules that lower an operation wrong, and how to put one in the place of the right one."""

from __future__ import annotations

from pathlen.lowering import rules
from pathlen.lowering.labels import broadcast, constant_labels


def replace_rule(monkeypatch, name, apply):
    """Give an operation another way to be lowered, for one test."""
    kind = rules._RULES.get(name, rules._RULES["elementwise"]).kind
    monkeypatch.setitem(rules._RULES, name, rules.Rule(kind, apply))
    monkeypatch.setattr(rules, "_FOUND", {})  # what was looked up before


def as_pass(call, lowering):
    """Each unit to itself, whatever the operation does."""
    source = next(value for value in call.values() if value.is_path)
    return lowering.result(call, broadcast(source.labels, call.shape))


def as_cut(call, lowering):
    """Nothing passes."""
    return lowering.result(call, constant_labels(call.shape))
