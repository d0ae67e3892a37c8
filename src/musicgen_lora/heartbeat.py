"""No command is silent for long: it says every few seconds what it is doing, however long one call
into a library takes. Otherwise slow work looks like a program that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

SILENCE_S = 5.0
"""The longest silence."""
LEAST_S = 1.0
"""A part that has only just begun is not reported: it may be over at once."""


@dataclass(eq=False)
class WorkPart:
    """A part of the work.

    Args:
        line: what to say of it, given the seconds since it began.
    """

    line: Callable[[float], str]
    say: Callable[[str], object]
    began_s: float


class Heartbeat:
    """Reports the innermost part of the work that is taking long, if nothing else was printed.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._parts: list[WorkPart] = []
        self._said_s = clock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def heard(self) -> None:
        """Notes that a line was printed, by anyone."""
        self._said_s = self._clock()

    @contextmanager
    def part(self, line: Callable[[float], str], say: Callable[[str], object]) -> Iterator[None]:
        """Makes the work inside a part of its own."""
        part = WorkPart(line, say, self._clock())
        self._parts.append(part)
        self._start()
        try:
            yield
        finally:
            self._parts.remove(part)
            if not self._parts:
                self._stop()

    def beat(self) -> None:
        """Says what is being done if nothing was printed for too long."""
        now = self._clock()
        with suppress(IndexError):
            part = [part for part in self._parts if now - part.began_s >= LEAST_S][-1]
            if now - self._said_s >= SILENCE_S:
                self._said_s = now
                part.say(part.line(now - part.began_s))

    def _start(self) -> None:
        if self._thread is not None:
            return
        # Silence counts from the beginning of this part.
        self.heard()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._ended,), daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        thread, self._thread = self._thread, None
        self._ended.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(0.1 * SILENCE_S):
            self.beat()


_of_process = Heartbeat()
heard, part = _of_process.heard, _of_process.part
