"""Where what can be made again is kept between runs, for this user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/musicgen_lora`, `~/.cache/musicgen_lora` by default. It may not be there."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "musicgen_lora"
