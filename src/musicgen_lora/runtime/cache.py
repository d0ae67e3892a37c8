"""The user's cache folder, for files that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/musicgen_lora`, by default `~/.cache/musicgen_lora`. It may not exist."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "musicgen_lora"
