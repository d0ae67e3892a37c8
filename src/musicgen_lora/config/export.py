"""Settings of `merge`, `export` and `import`, which write models for other programs and people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.config.adapters import AdaptersSettings
from musicgen_lora.config.kinds import STRICT


def _hub_name(name: str) -> str:
    """The Hub's own rule; nothing is no name."""
    part = r"\w([\w.-]{0,94}\w)?"
    is_one = re.fullmatch(f"{part}/{part}", name, re.ASCII)
    if name and (not is_one or re.search(r"--|\.\.|\.git$", name)):
        raise ValueError("should be OWNER/NAME as on the Hub, such as facebook/musicgen-small")
    return name


HubName = Annotated[str, AfterValidator(_hub_name)]


@dataclass(config=STRICT)
class HubSettings:
    """What becomes of an export on the Hub."""

    hub_base: HubName = ""
    """The base's name on the Hub, such as facebook/musicgen-small, where model_path is a folder."""
    push_to_hub: str | None = None
    """Repository USER/NAME on the Hub that the finished folder is uploaded to as well."""
    public: bool = False
    """All may see that repository; it is private else."""
    dry_run: bool = False
    """Say what would be uploaded, and upload nothing."""


@dataclass(config=STRICT)
class MergingSettings:
    """What is read, and where the result goes."""

    model_path: str = EMBEDDED_NAME
    """Base model that the adapters belong to: a folder, a hub id, or the embedded tiny-beats."""
    output_dir: Path = Path("finetune/output/merged")
    """Where the checkpoint goes; new or empty."""


@dataclass(config=STRICT)
class MergeSettings(HubSettings, AdaptersSettings, MergingSettings):
    """Fold adapters into a base: a full checkpoint in Hugging Face's format."""


@dataclass(config=STRICT)
class ExportingSettings:
    """What is read, and where the result goes."""

    format: Literal["audiocraft", "peft"] = "audiocraft"
    """audiocraft: Meta's own library, adapters merged into the base; peft: one adapter by itself,
    without what tells of your machine and files, with a card and samples."""
    model_path: str = EMBEDDED_NAME
    """Base model: a folder, a hub id, or the embedded tiny-beats; audiocraft needs no adapters."""
    output_dir: Path = Path("finetune/output/exported")
    """Where the files go; new or empty."""
    previews: Path | None = None
    """WAV files for the card of format peft: a folder that generate wrote, or one of the training's
    previews (default: the newest of those beside the adapter)."""
    evaluation: Path | None = None
    """What evaluate wrote of this very adapter, whose figures go into the card of format peft."""


@dataclass(config=STRICT)
class ExportSettings(HubSettings, AdaptersSettings, ExportingSettings):
    """Write a model for another program, or an adapter for other people."""


@dataclass(config=STRICT)
class ImportingSettings:
    """What is read, and where the result goes."""

    format: Literal["audiocraft"] = "audiocraft"
    """audiocraft: Meta's own library."""
    input_dir: Path = Path("finetune/output/exported")
    """Folder with state_dict.bin and compression_state_dict.bin."""
    model_path: str | None = None
    """A MusicGen in Hugging Face's format, for what the export only names: its text encoder, and in
    Meta's releases its codec, such as facebook/musicgen-small."""
    output_dir: Path = Path("finetune/output/imported")
    """Where the model goes; new or empty."""


@dataclass(config=STRICT)
class ImportSettings(ImportingSettings):
    """Turn another program's model into a base in Hugging Face's format."""
