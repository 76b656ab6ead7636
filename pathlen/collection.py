"""Garbage collection, put off while much is made that stays."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MUCH = 20
"""Modules that create tens of thousands of objects when they are loaded."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause garbage collection inside the block.

    Loading code and recording calls create tens of thousands of objects, all of which stay; looking
    through them for cycles again and again takes up to half of the time that making them takes.
    If code was loaded, what there is now is passed on to the oldest generation as it is: a search
    through it right after the block would take as long as those that were put off.

    Searches are put off in all threads, by their threshold: whether they are enabled stays what
    it is, and so does a threshold that another thread sets meanwhile.
    """
    before = gc.get_threshold()
    if not (before[0] and gc.isenabled()):
        yield
        return
    modules = len(sys.modules)
    try:
        gc.set_threshold(0)
        yield
    finally:
        if len(sys.modules) - modules > MUCH and not gc.get_freeze_count():
            gc.freeze()  # all generations become one that is not searched,
            gc.unfreeze()  # and that one the oldest
        if not gc.get_threshold()[0]:
            gc.set_threshold(*before)
