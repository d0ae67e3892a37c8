"""Signals as requests: a run that is asked to stop finishes its step, saves and leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from contextlib import ExitStack
from types import FrameType

from musicgen_lora.language.translate import translated
from musicgen_lora.terminals import handled, hangups, let_go

ASKED = "Stopping after this step, with a checkpoint; once more ends it at once, without one."
ENDED = (
    "Ended at once: what came after the last checkpoint is lost; the same command goes on from it."
)
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
        self._handled = ExitStack()

    def __enter__(self) -> StopSignals:
        # A notebook's worker thread goes without.
        stops = [signal.SIGINT, signal.SIGTERM, *hangups()]
        self._handled.enter_context(handled(stops, self._receive))
        return self

    def __exit__(self, *_: object) -> None:
        self._handled.close()

    def _receive(self, number: int, _: FrameType | None) -> None:
        let_go()
        if not self.received:
            self.received, self._received_at = number, time.monotonic()
            _say(ASKED)
        elif time.monotonic() - self._received_at >= self._grace_s:
            _say(ENDED)
            os._exit(128 + number)


def _say(sentence: str) -> None:
    """A line to standard error, past its buffer, in which the signal may have met the program."""
    if os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(OSError):
            os.write(2, f"{translated(sentence)}\n".encode())
