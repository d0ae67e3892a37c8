"""Files that change while they are read, as in a folder that is being copied or synchronised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from musicgen_lora.errors import AudioError, audio_unread
from musicgen_lora.runtime.workers import SignOfLife

BLOCK_BYTES = 16 << 20
"""Bytes that a slow network drive gives well before a worker would seem to hang."""


@contextmanager
def unchanged(path: Path, digest: str, alive: SignOfLife) -> Iterator[None]:
    """A context that reads a file whose bytes had this SHA-256 when the input was listed: what is
    read is kept under it, and belongs to captions and facts that were found then.

    Raises:
        AudioError: it has other bytes by now, changes meanwhile, or can't be read.
        RunError: the disk is broken.
    """
    try:
        before = _state(path)
        is_listed = _sha256(path, alive) == digest
    except OSError as error:
        raise audio_unread(path, error) from error
    if is_listed:
        yield
        try:
            is_listed = _state(path) == before
        except OSError as error:
            raise audio_unread(path, error) from error
    if not is_listed:
        raise AudioError(
            f"{path}: changed while prepare ran; once it is whole (is the folder still being "
            "copied or synchronised?), run prepare again."
        )


def _sha256(path: Path, alive: SignOfLife) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
            alive()
    return found.hexdigest()


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
