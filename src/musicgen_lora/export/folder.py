"""Where an export goes: a folder that is new, or empty, and either whole or absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from musicgen_lora import atomic
from musicgen_lora.given import check_is_free


def publish(folder: Path, fill: Callable[[Path], object]) -> None:
    """Calls `fill(staging folder)` and puts that in place of `folder`, with a manifest of hashes.

    Raises:
        UserError: something is in the folder by now.
        RunError: the disk is full or broken; nothing is left.
    """

    def fill_free(staging: Path) -> None:
        fill(staging)
        check_is_free(folder)

    check_is_free(folder)
    atomic.publish_folder(folder, fill_free)
