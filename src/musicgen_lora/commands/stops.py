"""Ctrl-C, SIGTERM and SIGHUP, which end a command with a word and with what it began cleared
away."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from musicgen_lora.terminals import handled, hangups, let_go


class Terminated(BaseException):
    """SIGTERM has come."""


class HungUp(Terminated):
    """SIGHUP has come: the terminal was closed."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C meanwhile, so that what was begun is cleared away. When
    that is done, another one ends the process at once."""

    def stop(number: int, _: FrameType | None) -> None:
        let_go()
        raise _stop_of(number)

    with handled([signal.SIGTERM, *hangups()], stop):
        try:
            yield
        except (KeyboardInterrupt, Terminated):
            # Comes before what libraries do at exit, where a second one would show tracebacks.
            atexit.register(_end_at_once)
            raise


@contextlib.contextmanager
def whole_stops() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end what is done meanwhile as what they are. Libraries that load
    turn an exception in their midst into one of their own, or pass over it."""
    stops: list[type[BaseException]] = []

    def stop(number: int, _: FrameType | None) -> None:
        let_go()
        stops.append(_stop_of(number))
        raise stops[-1]

    with handled([signal.SIGINT, signal.SIGTERM, *hangups()], stop):
        try:
            yield
        except BaseException as error:
            if stops and not isinstance(error, stops[-1]):
                raise stops[-1] from error
            raise
    if stops:
        raise stops[-1]


def _end_at_once() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, *hangups()):
        signal.signal(number, lambda number, _: os._exit(128 + number))


def _stop_of(number: int) -> type[BaseException]:
    if number == signal.SIGINT:
        return KeyboardInterrupt
    return Terminated if number == signal.SIGTERM else HungUp
