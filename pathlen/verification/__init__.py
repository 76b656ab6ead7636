"""Proof for one model: is its path graph right? Replay, Jacobians, activities; see `verify`."""

from pathlen.verification.run import verify
from pathlen.verification.verdict import Check, Offence, Verdict

__all__ = ["Check", "Offence", "Verdict", "verify"]
