"""How strong the prior is over the steps of the linearize phase."""

from __future__ import annotations

from collections.abc import Callable

from pathlen.errors import PathlenError

Schedule = Callable[[int, int], float]
"""From the step, and the number of active units before it, to omega."""


def constant(omega: float) -> Schedule:
    """The same strength all the time."""
    return lambda step, num_active: omega


def ramp(omega: float, steps: int, start: float = 0.0) -> Schedule:
    """Linear from `start` to `omega` within a number of steps, then constant.

    Raises:
        PathlenError: There are no steps.
    """
    if steps < 1:
        raise PathlenError(f"a ramp takes at least one step, not {steps}")
    return lambda step, num_active: start + (omega - start) * min(1.0, step / steps)


class GrowUntilFalling:
    """Multiplies the strength, again and again, until the number of active units falls.

    Args:
        omega: Strength at first, above 0.
        factor: To multiply by, above 1.
        patience: Steps without a fall before the next multiplication.

    Raises:
        PathlenError: An argument is out of range.
    """

    def __init__(self, omega: float, factor: float = 1.5, patience: int = 100) -> None:
        if omega <= 0 or factor <= 1 or patience < 1:
            raise PathlenError(
                f"omega={omega} must be above 0, factor={factor} above 1 and patience={patience} at"
                " least 1"
            )
        self._omega, self._factor, self._patience = omega, factor, patience
        self._least, self._since = -1, 0

    def __call__(self, step: int, num_active: int) -> float:
        """The strength for a step."""
        if self._least < 0 or num_active < self._least:
            self._least, self._since = num_active, step
        elif step - self._since >= self._patience:
            self._omega, self._since = self._omega * self._factor, step
        return self._omega

    def state_dict(self) -> dict[str, float]:
        """What the next call depends on."""
        return {"omega": self._omega, "least": self._least, "since": self._since}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on where another schedule was."""
        self._omega = float(state["omega"])
        self._least, self._since = int(state["least"]), int(state["since"])
