"""Proof for one model: is its path graph right? Replay, Jacobians, activities; see `verify`.

`run` reads as the list of the checks: `compare`, `connections`, `whole`, `activities`, `features`,
`spellings`. Each counts in a `tally` and gives a line of the `verdict`. Connections are those that
`edges` reads off the graph, against the `support` of the Jacobian of a call, between the values
where a `cut` says that it begins (`cuts`, and for flat sums and products `summands`). Spellings are
made by torch's passes and by `respell`, which writes single calls in other ways (`rewrites`,
`detours`) and runs them (`respelled`).
"""

from pathlen.verification.run import verify
from pathlen.verification.verdict import Check, Offence, Verdict

__all__ = ["Check", "Offence", "Verdict", "verify"]
