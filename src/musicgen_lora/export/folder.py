"""Where an export goes: a new or empty folder, which ends up complete or absent."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from musicgen_lora import atomic
from musicgen_lora.atomic import LOCK_FILE
from musicgen_lora.given import check_is_free
from musicgen_lora.runtime.locks import in_use, locked


def publish(folder: Path, fill: Callable[[Path], object]) -> None:
    """Calls `fill(staging folder)` and moves that to `folder`, with a manifest of hashes. Staging
    folders of killed exports beside it are deleted, whatever they would have been called: they may
    be as large as the model.

    Raises:
        UserError: the folder is no longer empty.
        RunError: the disk is full or broken; nothing is left behind.
    """

    @contextmanager
    def held(staging: Path) -> Iterator[None]:
        with locked(staging):
            yield
            check_is_free(folder)
        (staging / LOCK_FILE).unlink(missing_ok=True)

    check_is_free(folder)
    own = atomic.stagings_of(folder.resolve())
    for staging in atomic.stagings_in(folder.resolve().parent):
        # Another command's staging folder has no lock.
        if (staging in own or (staging / LOCK_FILE).exists()) and not in_use(staging):
            shutil.rmtree(staging)
    atomic.publish_folder(folder, fill, held)
