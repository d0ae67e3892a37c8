"""Settings of `prefetch`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pydantic.dataclasses import dataclass

from musicgen_lora.config.kinds import STRICT


@dataclass(config=STRICT)
class FetchingSettings:
    """What is fetched."""

    models: list[str] = dataclasses.field(default_factory=list)
    """Hub ids (default: those of the settings file, or else facebook/musicgen-small and
    laion/larger_clap_general)."""
    settings_file: Path | None = None
    """Settings file, such as finetune/lora/config.yaml, whose commands' models are fetched."""
    dry_run: bool = False
    """List files and sizes, and fetch nothing."""


@dataclass(config=STRICT)
class PrefetchSettings(FetchingSettings):
    """Fetch the models that a hub would give later on, so that no network is needed then."""
