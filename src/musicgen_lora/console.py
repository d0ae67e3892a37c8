"""Where the commands print."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID
from rich.table import Table
from rich.text import Text

from musicgen_lora.language.translate import filled, translated, word

OnStep = Callable[[int, int], None]
"""Told how much is done, and of how much."""
LINE_EVERY_S = 5.0
"""Between the lines of a task that takes long, where there is no bar."""


def plain_console() -> Console:
    """Prints lines as they are. Names of files and clips may hold [brackets] and :colons:, which
    rich would take for markup and choke on; colour goes by `style`."""
    return CommandConsole(soft_wrap=True, highlight=False, markup=False, emoji=False)


class CommandConsole(Console):
    """rich's, but that it speaks the user's language, and says when nobody reads what it prints."""

    def print(self, *objects: Any, **kwargs: Any) -> None:
        super().print(*map(_said, objects), **kwargs)

    def on_broken_pipe(self) -> None:
        """Says so, where rich would end the process without a word.

        Raises:
            BrokenPipeError: always.
        """
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _said(shown: Any) -> Any:
    if isinstance(shown, Text):
        return Text(translated(shown.plain), shown.style)
    return translated(shown) if isinstance(shown, str) else shown


class MessageTable(Table):
    """A table of the program's own words and sentences, in the user's language."""

    def add_column(self, header: Any = "", *args: Any, **kwargs: Any) -> None:
        # A Chinese sentence is one word to rich, which cuts off words that are too long.
        super().add_column(word(header), *args, overflow="fold", **kwargs)

    def add_row(self, *cells: Any, **kwargs: Any) -> None:
        super().add_row(*map(word, cells), **kwargs)


class CommandProgress(Progress):
    """rich's bars; where the output is no terminal, a line every few seconds. What takes no longer
    says nothing."""

    def __init__(self, console: Console, *columns: str | ProgressColumn) -> None:
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._said_s = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if self.console.is_terminal or now - self._said_s < LINE_EVERY_S:
            return
        self._said_s = now
        task = self._tasks[task_id]
        done = f"{task.completed:.0f}"
        line = filled("{0}: {1}", task.description, done)
        if task.total:
            total, share = f"{task.total:.0f}", f"{task.percentage:.0f}"
            line = filled("{0}: {1} of {2} ({3} %)", task.description, done, total, share)
        self.console.print(line, markup=False)


@contextmanager
def progress(console: Console, what: str, total: int | None = None) -> Iterator[OnStep]:
    """The progress of one task. Gives what is to be told `(done, total)`."""
    with CommandProgress(console) as shown:
        task = shown.add_task(translated(what), total=total)

        def on_step(done: int, of: int) -> None:
            shown.update(task, completed=done, total=of)

        yield on_step


@contextmanager
def free_stdout(is_taken: bool) -> Iterator[None]:
    """Whatever is printed goes to standard error where standard output is taken by something
    else."""
    if not is_taken:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield
