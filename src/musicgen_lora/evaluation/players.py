"""Decoders that play, and threads that hear, side by side: a small decoder works on one thread, and
the other cores would wait.

On a CPU a clip is the same to the bit whatever else is played with it, so that a batch may be
shared among threads.
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
    """Starts as many threads as torch uses, to decode and hear clips: their layers are too small to
    share, so each thread takes a clip and torch computes with one in it. What is heard does not
    hang on how many there are.

    Args:
        side_by_side: False is one thread, in which torch computes with all of its own.
    """
    n = torch.get_num_threads()
    with torch_threads(n) if side_by_side else torch_threads(1, each=n) as pool:
        yield pool


Work = TypeVar("Work")
Made = TypeVar("Made")


class Stopped(Exception):
    """Nobody waits any more for what a thread plays."""


class Players:
    """Decoders of a model as it is now.

    Args:
        precision: of their weights.
        n: how many play at once.
        pool: threads, where it is more than one.
    """

    def __init__(self, model: BaseModel, precision: str, n: int, pool: Executor | None) -> None:
        self.n, self._pool, self.ended = n, pool, Event()
        self._free: SimpleQueue[Decoder] = SimpleQueue()
        for _ in range(n):
            self._free.put(Decoder(model, precision))

    def play(self, play: Callable[[Decoder, Work], Made], works: Sequence[Work]) -> list[Made]:
        """What each work comes to, in order, by whichever decoder is free."""

        def by_one(work: Work) -> Made:
            decoder = self._free.get()
            try:
                return play(decoder, work)
            finally:
                self._free.put(decoder)

        return [*(map if self._pool is None else self._pool.map)(by_one, works)]

    def check(self) -> None:
        """To be called at each step: raises `Stopped` in threads that are still playing when it is
        over."""
        if self.ended.is_set():
            raise Stopped


@contextmanager
def players(model: BaseModel, precision: str) -> Iterator[Players]:
    """As many decoders as torch uses threads, where each works on one of them; else a single one,
    which plays here."""
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
    """Rows in at most n parts of nearly equal length, none of them empty."""
    size = max(1, -(-len(rows) // n))
    return [rows[at : at + size] for at in range(0, len(rows), size)]
