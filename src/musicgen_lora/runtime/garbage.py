"""Turns garbage collection off while libraries load: nearly all objects that they make stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage(*, freezes: bool = True) -> Iterator[None]:
    """A context for loading libraries. Collecting garbage among their objects, then and later,
    would take a quarter of the time until a training's first step, and most of a process's time to
    exit.

    Args:
        freezes: whether what is there at the end is never collected; not for a process that is
            somebody else's, who may have garbage of their own.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freezes and not gc.get_freeze_count():
            gc.freeze()
        if collects:
            gc.enable()
