"""Where the commands print."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from musicgen_lora import heartbeat
from musicgen_lora.errors import printable
from musicgen_lora.language.translate import filled, translated, word
from musicgen_lora.terminals import let_go, named_output
from musicgen_lora.urls import with_urls

OnStep = Callable[[float, int], None]
"""Called with how much is done, and of how much; parts of a step count if they are known."""


def plain_console() -> Console:
    """A console that prints lines as they are. Names of files and clips may contain [brackets] and
    :colons:, which rich would take for markup and choke on; colour comes from `style`."""
    return CommandConsole(soft_wrap=True, highlight=False, markup=False, emoji=False)


class CommandConsole(Console):
    """rich's console, but in the user's language, and raising when nobody reads what it prints."""

    def print(self, *objects: Any, **kwargs: Any) -> None:
        with named_output():
            super().print(*map(_said, objects), **kwargs)
        heartbeat.heard()

    def __exit__(self, *error: Any) -> None:
        """Carries on if the terminal has been closed."""
        try:
            super().__exit__(*error)
        except OSError as fault:
            if fault.errno != errno.EIO or not let_go():
                raise

    def on_broken_pipe(self) -> None:
        """Raises, where rich would end the process silently.

        Raises:
            BrokenPipeError: always.
        """
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _said(shown: Any) -> Any:
    if isinstance(shown, Text):
        return Text(_line(shown.plain), shown.style)
    return _line(shown) if isinstance(shown, str) else shown


def _line(text: str) -> str:
    """A message on one line, whatever characters a name in it has."""
    return with_urls(translated(printable(text)))


class MessageTable(Table):
    """A table of the program's own words and sentences, in the user's language."""

    def add_column(self, header: Any = "", *args: Any, **kwargs: Any) -> None:
        # A Chinese sentence is one word to rich, which cuts off words that are too long.
        super().add_column(word(header), *args, overflow="fold", **kwargs)

    def add_row(self, *cells: Any, **kwargs: Any) -> None:
        super().add_row(*map(word, cells), **kwargs)


@contextmanager
def progress(console: Console, what: str, total: int | None = None) -> Iterator[OnStep]:
    """Shows the progress of one task: a bar in a terminal, else a line every few seconds and, if
    there was any, a last one; short tasks are silent. Yields what to call with `(done, total)`."""
    name = translated(what)
    done, of, shown, has_spoken = 0.0, total, (-1, 0), False

    def figures() -> tuple[int, int]:
        """How much is done, as a number and in percent."""
        percent = round(100.0 * done / of) if of else 0
        return int(done), percent if done == of else min(percent, 99)

    def line(seconds: float) -> str:
        nonlocal shown, has_spoken
        # The same figures again look like a program that hangs.
        stands, shown, has_spoken = figures() == shown, figures(), True
        if not of:
            return filled("{0} ... ({1} seconds so far)", name, f"{seconds:.0f}")
        values = name, shown[0], of, shown[1]
        if stands:
            return filled("{0}: {1} of {2} ({3} %), {4} seconds so far", *values, f"{seconds:.0f}")
        return filled("{0}: {1} of {2} ({3} %)", *values)

    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total)

        def on_step(now: float, total: int) -> None:
            nonlocal done, of
            done, of = now, total
            bar.update(task, completed=now, total=total)

        # In a terminal the bar shows it.
        say = (lambda line: None) if console.is_terminal else partial(_say, console)
        with heartbeat.part(line, say):
            yield on_step
    if has_spoken and of and shown != figures() and not console.is_terminal:
        console.print(line(0.0), markup=False)


@contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """Reports work that can't be counted every few seconds, once it takes long."""
    name = translated(what)

    def line(seconds: float) -> str:
        return filled("{0} ... ({1} seconds so far)", name, f"{seconds:.0f}")

    with heartbeat.part(line, partial(_say, console)):
        yield


def _say(console: Console, line: str) -> None:
    """Prints from another thread, where an exception would go unheard if the output's reader is
    gone: the working thread meets that itself."""
    try:
        console.print(line, markup=False)
    except BrokenPipeError:
        console.quiet = False


def free_stdout(is_taken: bool) -> AbstractContextManager[Any]:
    """Sends whatever is printed to standard error if standard output is taken by something else."""
    return redirect_stdout(sys.stderr) if is_taken else nullcontext()
