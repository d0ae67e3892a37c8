"""Where the commands print."""

from __future__ import annotations

import errno
import os
from typing import Any

from rich.console import Console
from rich.progress import Progress


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


class ProgressTask:
    """A progress bar with one task; nothing where the output is no terminal."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        self._progress = Progress(console=console, disable=not console.is_terminal or not total)
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> tuple[Progress, Any]:
        self._progress.start()
        return self._progress, self._task

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
