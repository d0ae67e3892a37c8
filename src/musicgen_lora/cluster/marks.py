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


def write_mark(remote: Remote, status: str | None) -> None:
    """Writes there how far a run is; None takes back what was written.

    Raises:
        RunError: it can't be written.
    """
    if status is None:
        remote.delete(MARKER)
        return
    with tempfile.TemporaryDirectory(prefix="musicgen-lora-") as temporary:
        path = Path(temporary) / MARKER
        atomic.write_json(path, {"status": status})
        remote.put(path, MARKER)


def status_of(remote: Remote) -> str | None:
    """How far the last run was; None where none has said so.

    Raises:
        UserError: it can't be read.
    """
    if remote.state(MARKER) is None:
        return None
    with tempfile.TemporaryDirectory(prefix="musicgen-lora-") as temporary:
        remote.fetch(MARKER, Path(temporary) / MARKER)
        found = read_json(Path(temporary) / MARKER)
    return FINISHED if found.get("status") == FINISHED else UNFINISHED


def say_unfinished(remote: Remote, states: Collection[str], console: Console) -> None:
    """Says so where what is there isn't whole."""
    if MARKER in states and status_of(remote) == UNFINISHED:
        console.print(
            f"{remote.url}: the run that writes it is at work or broke off; files may be missing.",
            style="yellow",
        )
