"""Ctrl-C, SIGTERM and SIGHUP: they end a command with a message and clear away what it began."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from musicgen_lora.terminals import handled, hangups, let_go


class Terminated(BaseException):
    """SIGTERM has come."""


class HungUp(Terminated):
    """SIGHUP has come: the terminal was closed."""


AGAIN_S = 0.05
"""After this time a stop that was swallowed is sent again."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP unwind like Ctrl-C, so that what was begun is cleared away. After
    that, another one ends the process at once."""

    def stop(number: int, _: FrameType | None) -> None:
        let_go()
        raise _stop_of(number)

    with handled([signal.SIGTERM, *hangups()], stop), _passed_over(_send_again):
        try:
            yield
        except (KeyboardInterrupt, Terminated):
            # Runs before the libraries' exit handlers, where a second one would show tracebacks.
            atexit.register(_end_at_once)
            raise


@contextlib.contextmanager
def whole_stops() -> Iterator[None]:
    """Makes Ctrl-C, SIGTERM and SIGHUP end the block as themselves. Libraries that are loading turn
    an exception in their midst into one of their own, or swallow it."""
    stops: list[type[BaseException]] = []

    def stop(number: int, _: FrameType | None) -> None:
        let_go()
        stops.append(_stop_of(number))
        raise stops[-1]

    numbers = [signal.SIGINT, signal.SIGTERM, *hangups()]
    # It is raised at the end.
    with handled(numbers, stop), _passed_over(lambda stop: None):
        try:
            yield
        except BaseException as error:
            if stops and not isinstance(error, stops[-1]):
                raise stops[-1] from error
            raise
    if stops:
        raise stops[-1]


@contextlib.contextmanager
def _passed_over(take: Callable[[type[BaseException]], None]) -> Iterator[None]:
    """Passes to `take` the stops that arrive in a destructor or another callback, from which no
    exception propagates: python would print each of them and go on."""
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if issubclass(found.exc_type, (KeyboardInterrupt, Terminated)):
            take(found.exc_type)
        else:
            before(found)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _send_again(stop: type[BaseException]) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, *hangups()]
    number = next(number for number in numbers if _stop_of(number) is stop)
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _end_at_once() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, *hangups()):
        signal.signal(number, lambda number, _: os._exit(128 + number))


def _stop_of(number: int) -> type[BaseException]:
    if number == signal.SIGINT:
        return KeyboardInterrupt
    return Terminated if number == signal.SIGTERM else HungUp
