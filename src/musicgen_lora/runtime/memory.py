"""A bound on what this process may take, for work on files that claim what they like."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USAGE = Path("/proc/self/statm")
PLAIN_ALLOCATOR = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Variables of processes that take memory as they need it. Arrow chooses when it loads; its own
allocator takes a gigabyte at once, which a bound counts."""


@contextmanager
def memory_bounded(n_bytes: int) -> Iterator[None]:
    """Meanwhile this process may take `n_bytes` more than it has; what asks for more gets a
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
