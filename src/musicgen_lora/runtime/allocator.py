"""Control over the memory of tensors: the size of its pages, and whether what they free is kept."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""Torch then asks Linux for pages of 2 MB instead of 4 kB for tensors of that size and more."""


def huge_pages(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables to set before torch loads; none if the user has decided. Decoding waits for the
    weights, and pages of 4 kB are read more slowly: each needs a look-up of its address.

    Args:
        environment: the process's (default: this one's).
    """
    given = os.environ if environment is None else environment
    return {name: value for name, value in HUGE_PAGES.items() if name not in given}


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
