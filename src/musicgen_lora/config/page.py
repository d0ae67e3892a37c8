"""Settings of `ui`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from musicgen_lora.config.kinds import STRICT


@dataclass(config=STRICT)
class ServingSettings:
    """Where the page is, and what it may read and write."""

    workspace: Path = Path("workspace")
    """Folder of all that the page writes: audio, datasets, runs, generated clips, jobs."""
    audio_dirs: list[Path] = dataclasses.field(default_factory=list)
    """Further folders that audio may be chosen from."""
    host: str = "127.0.0.1"
    """Address to listen at; any but this machine's own needs a password in
    MUSICGEN_LORA_PASSWORD."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    """Port to listen at."""
    page_language: Literal["browser", "en", "zh"] = "browser"
    """Language that the page opens in."""


@dataclass(config=STRICT)
class UiSettings(ServingSettings):
    """Serve the page: the whole route in a browser, for one person."""
