"""Ctrl-C and SIGTERM, which end a command with a word and with what it began cleared away."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Terminated(BaseException):
    """SIGTERM has come."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C meanwhile, so that what was begun is cleared away."""
    try:
        previous = signal.signal(signal.SIGTERM, _raise_terminated)
    except ValueError:
        # Only the main thread may set handlers.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


@contextlib.contextmanager
def whole_stops() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is done meanwhile as what they are. Libraries that load turn an
    exception in their midst into one of their own, or pass over it."""
    stops: list[type[BaseException]] = []

    def stop(number: int, _: FrameType | None) -> None:
        stops.append(KeyboardInterrupt if number == signal.SIGINT else Terminated)
        raise stops[-1]

    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        # Only the main thread may set handlers.
        with contextlib.suppress(ValueError):
            previous[number] = signal.signal(number, stop)
    try:
        yield
    except BaseException as error:
        if stops and not isinstance(error, stops[-1]):
            raise stops[-1] from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stops:
        raise stops[-1]
