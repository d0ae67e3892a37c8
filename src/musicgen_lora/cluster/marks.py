"""Whether what a command writes into a store is whole: a store has no rename of a folder that would
say so."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.storage import Remote
from musicgen_lora.formats.documents import read_json

MARKER = ".musicgen-lora.json"
"""Says whether the command that writes there has ended and all of its files are there."""
UNFINISHED, FINISHED = "unfinished", "finished"


def mark(remote: Remote, status: str) -> None:
    """Writes there how far a run is.

    Raises:
        RunError: it can't be written.
    """
    with tempfile.TemporaryDirectory(prefix="musicgen-lora-") as temporary:
        path = Path(temporary) / MARKER
        atomic.write_json(path, {"status": status})
        remote.put(path, MARKER)


def say_unfinished(remote: Remote, states: Collection[str], console: Console) -> None:
    """Says so where what is there isn't whole.

    Args:
        states: names of what is there.
    """
    if MARKER not in states:
        return
    with tempfile.TemporaryDirectory(prefix="musicgen-lora-") as temporary:
        remote.fetch(MARKER, Path(temporary) / MARKER)
        found = read_json(Path(temporary) / MARKER)
    if found.get("status") == UNFINISHED:
        console.print(
            f"{remote.url}: the run that writes it is at work or broke off; files may be missing.",
            style="yellow",
        )
