"""Where the commands print."""

from __future__ import annotations

import errno
import os

from rich.console import Console


def plain_console() -> Console:
    """Prints lines as they are. Names of files and clips may hold [brackets] and :colons:, which
    rich would take for markup and choke on; colour goes by `style`."""
    return _Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Says so, where rich would end the process without a word.

        Raises:
            BrokenPipeError: always.
        """
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
