"""A marker that says whether a command's output in an object store is complete: a store can't
rename a whole folder into place."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.storage import Remote
from musicgen_lora.formats.documents import read_json

MARKER = ".musicgen-lora.json"
"""Says whether the command that writes there has finished, so that all of its files are there."""
UNFINISHED, FINISHED = "unfinished", "finished"


def write_mark(remote: Remote, status: str | None) -> None:
    """Writes a run's status there; None removes it.

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
    """The status of the last run; None if there is none.

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
    """Warns if the files there are incomplete."""
    if MARKER in states and status_of(remote) == UNFINISHED:
        console.print(
            f"{remote.url}: the run that writes here is still going or was interrupted; files may "
            "be missing.",
            style="yellow",
        )
