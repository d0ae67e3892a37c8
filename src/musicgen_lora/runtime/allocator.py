"""Control over whether the C library's allocator keeps the memory that tensors free."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Makes this process keep the memory that CPU tensors free. glibc would return it to the system
    at once, and each step would then wait for fresh pages for its activations. Other C libraries
    keep it anyway or can't be told to; with them nothing is done."""
    mallopt = _from_glibc("mallopt")
    if mallopt is not None:
        if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
            # Older versions accept at most 32 MiB.
            mallopt(M_MMAP_THRESHOLD, 1 << 25)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def return_freed_memory() -> None:
    """Returns free memory to the system, since the next tensors may not fit into it: glibc keeps it
    per thread, and between blocks in use. Takes a tenth of a second."""
    malloc_trim = _from_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _from_glibc(name: str) -> Any:
    """A function of this process's C library; None if it has none of this name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
