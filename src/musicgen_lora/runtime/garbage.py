"""No garbage is looked for while libraries load: nearly all that they make stays."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Libraries load meanwhile. Looking for garbage in what they make, then and later, would take a
    quarter of the time until a training's first step, and most of the time that a process takes to
    exit."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()
