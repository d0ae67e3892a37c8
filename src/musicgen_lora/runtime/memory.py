"""A bound on this process's memory, for work on files that may claim any size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USAGE = Path("/proc/self/statm")
PLAIN_ALLOCATOR = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Environment variables of processes that should take memory only as they need it. Arrow's own
allocator, chosen when Arrow loads, reserves a gigabyte at once, which a bound would count."""


@contextmanager
def memory_bounded(n_bytes: int) -> Iterator[None]:
    """A context in which this process may take `n_bytes` more than it has; asking for more raises
    `MemoryError`. Mapped files don't count. Only Linux has such a limit."""
    if not _USAGE.exists():
        yield
        return
    import resource

    n_pages = int(_USAGE.read_text(encoding="ascii").split()[5])
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = n_pages * os.sysconf("SC_PAGE_SIZE") + n_bytes
    limits = [limit, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
