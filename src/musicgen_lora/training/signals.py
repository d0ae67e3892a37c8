"""Signals as requests: a run that is asked to stop finishes its step, saves and leaves."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any

LAUNCHER_GRACE_S = 5.0
"""A launcher passes on to its processes the Ctrl-C that the terminal has already sent them."""


class StopSignals:
    """Turns the first SIGINT, SIGTERM or SIGHUP (the terminal was closed) into a request to stop
    after the step; the second one ends the process at once.

    Args:
        grace_s: a second one this soon after the first is the first again.
    """

    def __init__(self, grace_s: float = 0.0) -> None:
        self.received = 0
        self._received_at = 0.0
        self._grace_s = grace_s
        self._previous: dict[int, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> StopSignals:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for number in self._numbers():
            # Only the main thread may set handlers; a notebook's worker thread goes without.
            try:
                self._previous[number] = signal.signal(number, self._receive)
            except ValueError:
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @staticmethod
    def _numbers() -> list[int]:
        numbers = [signal.SIGINT, signal.SIGTERM]
        # Whoever started it with nohup wants it to go on.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        return [int(number) for number in numbers]

    def _receive(self, number: int, _: FrameType | None) -> None:
        for descriptor in self._terminals:
            # The terminal has hung up: a line printed there would be an error, and end the save.
            if not os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if not self.received:
            self.received, self._received_at = number, time.monotonic()
        elif time.monotonic() - self._received_at >= self._grace_s:
            os._exit(128 + number)
