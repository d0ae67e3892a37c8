"""Threads that decode and hear clips side by side.

A clip's layers are too small to share among threads, so each thread takes a clip and torch computes
with one in it. What is heard does not hang on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def hearers(*, side_by_side: bool = True) -> Iterator[ThreadPoolExecutor]:
    """Starts as many threads as torch uses.

    Args:
        side_by_side: False is one thread, in which torch computes with all of its own.
    """
    n_threads = torch.get_num_threads()
    pool = (
        ThreadPoolExecutor(n_threads, initializer=lambda: torch.set_num_threads(1))
        if side_by_side
        else ThreadPoolExecutor(1)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)
