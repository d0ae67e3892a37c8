"""Paths at which the parts of the pretraining find each other's results."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = Path(os.environ.get("PRETRAINING_WORK", HERE / "work"))
"""Everything that is rendered and trained; `$PRETRAINING_WORK` puts it on another disk."""
ASSETS = HERE / "assets"
PACKAGE_ASSETS = HERE.parent / "src" / "musicgen_lora" / "assets"
EMBEDDED_BASE = PACKAGE_ASSETS / "tiny_beats"
