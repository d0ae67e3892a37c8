"""The C library's allocator, told to keep the memory that tensors free."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Makes this process keep the memory that tensors on a CPU free. glibc returns it to the system
    at once, and a step then waits for as many fresh pages as it has activations. Other C libraries
    keep it by themselves or can't be told; nothing is done there."""
    mallopt = _from_glibc("mallopt")
    if mallopt is not None:
        if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
            # Older versions take no more than 32 MiB.
            mallopt(M_MMAP_THRESHOLD, 1 << 25)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def return_freed_memory() -> None:
    """Returns to the system what is kept and free, which the next tensors need not fit into: glibc
    keeps it for each thread apart, and between blocks that are in use. A tenth of a second."""
    malloc_trim = _from_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _from_glibc(name: str) -> Any:
    """A function of this process's C library; None where it has none of this name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
