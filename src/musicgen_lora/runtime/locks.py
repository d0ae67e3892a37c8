"""Locks for folders that commands write to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from musicgen_lora.atomic import LOCK_FILE
from musicgen_lora.errors import DISK_FAULTS, RunError, UserError
from musicgen_lora.urls import check_is_folder


class InUse(UserError):
    """Another process has locked the folder."""


@contextmanager
def locked(folder: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Makes the folder if need be, and locks it for this process.

    Args:
        wait_s: how long to wait for another process to release it.

    Raises:
        InUse: another process keeps using it.
        UserError: it can't be made, or is named by a URL.
        RunError: the disk is full or broken.
    """
    check_is_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise InUse(
            f"{folder}: in use by another run; wait for it, or use another folder."
        ) from error
    except OSError as error:
        kind = RunError if error.errno in DISK_FAULTS else UserError
        raise kind(f"{folder}: cannot be written ({error.strerror}).") from error
    try:
        yield
    finally:
        lock.release()


def in_use(folder: Path) -> bool:
    """Whether another process has locked the folder."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with FileLock(folder / LOCK_FILE).acquire(timeout=0):
            return False
    except Timeout:
        return True
