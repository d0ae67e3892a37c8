"""Threads that compute with torch side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from musicgen_lora.runtime.allocator import return_freed_memory


@contextmanager
def torch_threads(n: int, *, each: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Starts threads for jobs too small to be split across cores. Afterwards torch computes with as
    many threads as before, and the memory that these threads kept is returned to the system.

    Args:
        n: threads that work side by side.
        each: threads that torch computes with in each of them.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(n, initializer=lambda: torch.set_num_threads(each))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
        return_freed_memory()
