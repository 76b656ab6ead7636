"""Proof for one model: is its path graph right? Replay, Jacobians, activities; see `verify`.

`run` reads as the list of the four checks: `compare`, `connections`, `whole` and `activities`. Each
counts in a `tally` and gives a line of the `verdict`. Connections are those that `edges` reads off
the graph, against the `support` of the Jacobian of a call, between the values where a `cut` says
that it begins (`cuts`).
"""

from pathlen.verification.run import verify
from pathlen.verification.verdict import Check, Offence, Verdict

__all__ = ["Check", "Offence", "Verdict", "verify"]
