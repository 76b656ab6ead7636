"""The modules whose forward is running, found by the frames of the thread that runs them.

Hooks on all modules (`register_module_forward_hook`) would be called for other threads too, and
change how `torch.compile` treats their models.
"""

import sys
import threading
from types import FrameType

from torch.nn import Module

Place = tuple[str, type]
"""Path and class of a module."""

_CALL = Module._call_impl.__code__


class ModuleStack:
    """The chain of modules around a call, from the outermost.

    Args:
        outside: frame in which the model is called; what is outside of it does not count.
    """

    def __init__(self, outside: FrameType | None = None) -> None:
        self._thread = threading.get_ident()
        self._outside = outside
        self._paths: dict[int, str] = {}
        self._frames: list[FrameType] = []
        self._places: list[Place] = []

    def now(self) -> list[Place]:
        """The modules around the line that asks.

        What autograd calls in a thread of its own is where that was asked for.
        """
        if self._outside is None or threading.get_ident() != self._thread:
            return self._places
        known = {id(frame): place for place, frame in enumerate(self._frames)}
        added: list[FrameType] = []
        kept = 0
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._outside:
            if frame.f_code is _CALL:
                if id(frame) in known:
                    kept = known[id(frame)] + 1
                    break
                added.append(frame)
            frame = frame.f_back
        if added or kept < len(self._frames):
            del self._frames[kept:]
            self._places = self._places[:kept]
            for frame in reversed(added):
                self._enter(frame)
        return self._places

    def put(self, places: list[Place]) -> None:
        """Say where calls are, where no module tells."""
        self._outside, self._places = None, places

    def forget(self) -> None:
        """Let go of the frames, and of what their variables hold."""
        self._frames, self._outside = [], None

    def _enter(self, frame: FrameType) -> None:
        module: Module = frame.f_locals["self"]
        if not self._paths:  # the first module to be called is the model itself
            self._paths = {id(own): path for path, own in module.named_modules()}
        around = self._places[-1][0] if self._places else ""
        self._frames.append(frame)
        self._places.append((self._paths.get(id(module), around), type(module)))
