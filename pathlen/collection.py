"""Garbage collection, put off while much is made that stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage inside the block.

    Loading code and recording calls make objects by the ten thousand, all of which stay; looking
    through them for cycles again and again takes up to half of the time that making them takes.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
