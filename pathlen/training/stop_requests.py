"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self


class Requests:
    """Notes SIGINT and SIGTERM, so that a run stops between two steps, when it can be saved.

    A second signal stops at once.
    """

    def __init__(self) -> None:
        self.pending = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Listen; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def __exit__(self, *error: object) -> None:
        """Leave signals to whom they went before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
