"""Where the commands print."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

OnStep = Callable[[int, int], None]
"""Told how much is done, and of how much."""
LINE_EVERY_S = 5.0
"""Between the lines of a task that takes long, where there is no bar."""


def plain_console() -> Console:
    """Prints lines as they are. Names of files and clips may hold [brackets] and :colons:, which
    rich would take for markup and choke on; colour goes by `style`."""
    return CommandConsole(soft_wrap=True, highlight=False, markup=False, emoji=False)


class CommandConsole(Console):
    """rich's, but that it says when nobody reads what it prints."""

    def on_broken_pipe(self) -> None:
        """Says so, where rich would end the process without a word.

        Raises:
            BrokenPipeError: always.
        """
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


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
        share = f" of {task.total:.0f} ({task.percentage:.0f} %)" if task.total else ""
        self.console.print(f"{task.description}: {task.completed:.0f}{share}", markup=False)


@contextmanager
def progress(console: Console, what: str, total: int | None = None) -> Iterator[OnStep]:
    """The progress of one task. Gives what is to be told `(done, total)`."""
    with CommandProgress(console) as shown:
        task = shown.add_task(what, total=total)

        def on_step(done: int, of: int) -> None:
            shown.update(task, completed=done, total=of)

        yield on_step
