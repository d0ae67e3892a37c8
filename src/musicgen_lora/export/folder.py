"""Where an export goes: a folder that is new, or empty, and either whole or absent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from musicgen_lora import atomic
from musicgen_lora.given import check_is_free
from musicgen_lora.runtime.locks import LOCK_FILE, in_use, locked


def publish(folder: Path, fill: Callable[[Path], object]) -> None:
    """Calls `fill(staging folder)` and puts that in place of `folder`, with a manifest of hashes.
    What a killed one has left beside it goes: it may be as large as the model.

    Raises:
        UserError: something is in the folder by now.
        RunError: the disk is full or broken; nothing is left.
    """

    def fill_free(staging: Path) -> None:
        with locked(staging):
            fill(staging)
            check_is_free(folder)
        (staging / LOCK_FILE).unlink(missing_ok=True)

    check_is_free(folder)
    for staging in atomic.stagings_of(folder.resolve()):
        if not in_use(staging):
            shutil.rmtree(staging)
    atomic.publish_folder(folder, fill_free)
