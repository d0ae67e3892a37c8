"""Settings of `prefetch`."""

from __future__ import annotations

import dataclasses

from pydantic.dataclasses import dataclass

from musicgen_lora.config.kinds import STRICT, Place, settings_of_command


@dataclass(config=STRICT)
class FetchingSettings:
    """What is fetched."""

    models: list[str] = dataclasses.field(default_factory=list)
    """Hub ids (default: those in the settings file, else facebook/musicgen-small and
    laion/larger_clap_general)."""
    settings_file: Place | None = None
    """Settings file whose models to fetch, such as finetune/lora/config.yaml."""
    dry_run: bool = False
    """List files and sizes without fetching them."""


@settings_of_command
@dataclass(config=STRICT)
class PrefetchSettings(FetchingSettings):
    """Download models from a hub ahead of time, so that no network is needed later."""
