"""Folders that commands work in: locked by one process, and watched for leaving their place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from musicgen_lora.atomic import LOCK_FILE
from musicgen_lora.errors import DISK_FAULTS, RunError, UserError
from musicgen_lora.urls import check_is_folder


class InUse(UserError):
    """Another process has locked the folder."""


@contextmanager
def locked(folder: Path, *, wait_s: float = 0.0) -> Iterator[Callable[[], None]]:
    """Makes the folder if need be, and locks it for this process. Gives `staying`'s check.

    Args:
        wait_s: how long to wait for another process to release it.

    Raises:
        InUse: another process keeps using it.
        UserError: it can't be made, or is named by a URL.
        RunError: the disk is full or broken, or the folder didn't stay.
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
        with staying(folder) as check:
            yield check
    finally:
        lock.release()


@contextmanager
def staying(folder: Path) -> Iterator[Callable[[], None]]:
    """Ends work with an error if its folder is no longer the one that it began in. Whoever writes a
    file makes the folders around it, so that a half of the results would lie in a new folder of the
    same name, and pass for all of them.

    Gives a check to be made before what can't be undone.

    Raises:
        RunError: the folder was moved, deleted or replaced, whatever else failed because of that.
    """
    if os.name == "nt":
        # Where no folder can be opened, or moved while a file in it is open.
        yield lambda: None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        began_in = os.fstat(descriptor)

        def check() -> None:
            with suppress(OSError):
                if os.path.samestat(began_in, os.stat(folder)):
                    return
            raise lost(folder)

        try:
            yield check
        except Exception as error:
            try:
                check()
            except RunError as cause:
                raise cause from error
            raise
        check()
    finally:
        os.close(descriptor)


def lost(folder: Path) -> RunError:
    """The error for a folder that didn't stay."""
    return RunError(
        f"{folder}: was moved, deleted or replaced while it was in use, so something is missing "
        "from the results; put it back, or give its new place, and run the command again."
    )


def in_use(folder: Path) -> bool:
    """Whether another process has locked the folder."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with FileLock(folder / LOCK_FILE).acquire(timeout=0):
            return False
    except Timeout:
        return True
