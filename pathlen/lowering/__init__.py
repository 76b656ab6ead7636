"""Second stage: the rules that turn a recorded program into a path graph."""

from pathlen.lowering.program import lower

__all__ = ["lower"]
