"""Where the commands print."""

from __future__ import annotations

from rich.console import Console


def plain_console() -> Console:
    """Prints lines as they are. Names of files and clips may hold [brackets] and :colons:, which
    rich would take for markup and choke on; colour goes by `style`."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
