"""Turns garbage collection off while libraries load: nearly all objects that they make stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """A context for loading libraries. Collecting garbage among their objects, then and later,
    would take a quarter of the time until a training's first step, and most of a process's time to
    exit."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()
