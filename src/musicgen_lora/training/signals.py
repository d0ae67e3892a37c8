"""Signals as requests: a run that is asked to stop finishes its step, saves and exits."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from contextlib import ExitStack
from types import FrameType

from musicgen_lora.language.translate import translated
from musicgen_lora.terminals import handled, hangups, let_go

ASKED = (
    "Stopping after this step and saving a checkpoint; a second signal (Ctrl-C) stops at once "
    "without saving."
)
ENDED = (
    "Stopped at once: the steps since the last checkpoint are lost; run the same command to resume "
    "from it."
)
LAUNCHER_GRACE_S = 5.0
"""A launcher forwards the Ctrl-C that the terminal has already sent to its processes."""


class StopSignals:
    """Turns the first SIGINT, SIGTERM or SIGHUP (terminal closed) into a request to stop after the
    step; a second one ends the process at once.

    Args:
        grace_s: a second one within this time is taken for the first again.
    """

    def __init__(self, grace_s: float = 0.0) -> None:
        self.received = 0
        self._received_at = 0.0
        self._grace_s = grace_s
        self._handled = ExitStack()

    def __enter__(self) -> StopSignals:
        # In a notebook's worker thread, signals can't be handled.
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
    """Writes a line to standard error, past the buffer that the signal may have interrupted."""
    if os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(OSError):
            os.write(2, f"{translated(sentence)}\n".encode())
