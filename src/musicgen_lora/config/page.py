"""Settings of `ui`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from musicgen_lora.config.kinds import STRICT, Place, settings_of_command


@dataclass(config=STRICT)
class ServingSettings:
    """Where the page is served, and what it may read and write."""

    workspace: Place = Path("workspace")
    """Folder for everything the page writes: audio, datasets, runs, generated clips, jobs."""
    audio_dirs: list[Place] = dataclasses.field(default_factory=list)
    """More folders to choose audio from."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs a password in
    MUSICGEN_LORA_PASSWORD."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    """Port to listen on."""
    page_language: Literal["browser", "en", "zh"] = "browser"
    """Language that the page opens in."""


@settings_of_command
@dataclass(config=STRICT)
class UiSettings(ServingSettings):
    """Serve the web page: the whole workflow in a browser, for one person."""
