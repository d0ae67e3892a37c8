"""Decoders and analysis threads that run in parallel: a small decoder uses one thread, and the
other cores would be idle.

On a CPU a clip does not depend on the rest of its batch, down to the last bit, so a batch may be
split among threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

import torch

from musicgen_lora.generation.decoding.decoder import Decoder, decodes_on_one_thread
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime.pool import torch_threads


@contextmanager
def hearers(*, side_by_side: bool = True) -> Iterator[ThreadPoolExecutor]:
    """Start as many threads as torch uses, to decode and analyse clips: the layers are too small to
    split, so each thread takes a clip and torch uses one thread in it. The results do not depend on
    the number of threads.

    Args:
        side_by_side: False means one thread, in which torch uses all of its own.
    """
    n = torch.get_num_threads()
    with torch_threads(n) if side_by_side else torch_threads(1, each=n) as pool:
        yield pool


Work = TypeVar("Work")
Made = TypeVar("Made")


class Stopped(Exception):
    """A thread's result is no longer needed."""


class Players:
    """Decoders of a model with its current weights.

    Args:
        precision: of their weights.
        n: number of decoders that run in parallel.
        pool: their threads, if there is more than one.
    """

    def __init__(self, model: BaseModel, precision: str, n: int, pool: Executor | None) -> None:
        self.n, self._pool, self.ended = n, pool, Event()
        self._free: SimpleQueue[Decoder] = SimpleQueue()
        for _ in range(n):
            self._free.put(Decoder(model, precision))

    def play(self, play: Callable[[Decoder, Work], Made], works: Sequence[Work]) -> list[Made]:
        """Run each work on whichever decoder is free; results are in order."""

        def by_one(work: Work) -> Made:
            decoder = self._free.get()
            try:
                return play(decoder, work)
            finally:
                self._free.put(decoder)

        return [*(map if self._pool is None else self._pool.map)(by_one, works)]

    def check(self) -> None:
        """Raise `Stopped` in threads that are still running after the end; to be called at each
        step."""
        if self.ended.is_set():
            raise Stopped


@contextmanager
def players(model: BaseModel, precision: str) -> Iterator[Players]:
    """As many decoders as torch uses threads, if each uses one thread; else a single one in this
    thread."""
    n = torch.get_num_threads() if decodes_on_one_thread(model) else 1
    if n == 1:
        yield Players(model, precision, 1, None)
        return
    with hearers() as pool:
        side_by_side = Players(model, precision, n, pool)
        try:
            yield side_by_side
        finally:
            side_by_side.ended.set()


def shared_out(rows: Sequence[Work], n: int) -> list[Sequence[Work]]:
    """Split rows into at most n parts of nearly equal length, none of them empty."""
    size = max(1, -(-len(rows) // n))
    return [rows[at : at + size] for at in range(0, len(rows), size)]
