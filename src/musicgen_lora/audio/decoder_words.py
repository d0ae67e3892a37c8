"""Captures what the MP3 decoder prints to standard error: its lines name no file and come by the
hundred, and nobody could act on them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

STDERR = 2
_OF_DECODER = ("[src/libmpg123", "Warning:", "Note:")
_FAULT = "error:"
_ONE_AT_A_TIME = threading.Lock()


class DecoderWords:
    """Counts a decoder's complaints.

    Attributes:
        n_faults: frames that it could not decode so far.
    """

    def __init__(self) -> None:
        self.n_faults = 0

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Hides what the decoder prints meanwhile; what others print is shown afterwards."""
        with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
            try:
                real = os.dup(STDERR)
                stack.callback(os.close, real)
                kept = stack.enter_context(tempfile.TemporaryFile())
            except OSError:
                # There is no standard error, or no space for the temporary file.
                yield
                return
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stderr.flush()
            os.dup2(kept.fileno(), STDERR)
            try:
                yield
            finally:
                os.dup2(real, STDERR)
                kept.seek(0)
                self._sort(kept.read().decode(errors="replace"))

    def _sort(self, said: str) -> None:
        for line in said.splitlines(keepends=True):
            if line.startswith(_OF_DECODER):
                self.n_faults += _FAULT in line
            elif line.strip():
                os.write(STDERR, line.encode())
