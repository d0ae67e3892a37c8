"""Signals; terminals that are closed while a command runs (SIGHUP, and output that nobody will
see); and standard streams that were closed before it began."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from musicgen_lora.errors import DISK_FAULTS

OUTPUT = "<stdout>"
"""As the file name of a fault that the system gives none."""

_OUTPUTS = [number for number in (1, 2) if os.isatty(number)]
"""Those of standard output and error that were a terminal when the process began."""


def open_streams() -> None:
    """Opens the null device for standard streams that are closed, as after `command >&-`: the next
    file to be opened would get their number, and whatever libraries print."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            stream = os.fdopen(number, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


@contextlib.contextmanager
def named_output() -> Iterator[None]:
    """Names standard output in the fault of a disk that has no room for what is printed."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in DISK_FAULTS:
            error.filename = OUTPUT
        raise


def hangups() -> list[int]:
    """SIGHUP, if the system has it and it isn't ignored, as under `nohup`."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) == signal.SIG_IGN:
        return []
    return [int(number)]


@contextlib.contextmanager
def handled(
    numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handles signals in the block; only in the main thread, as no other may set handlers."""
    previous = {}
    for number in numbers:
        with contextlib.suppress(ValueError):
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def let_go() -> bool:
    """Discards from now on what is printed to a terminal that has hung up: it would raise an error,
    and end the work or a save. Returns whether there is such a terminal."""
    gone = [number for number in _OUTPUTS if not os.isatty(number)]
    for number in gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    return bool(gone)
