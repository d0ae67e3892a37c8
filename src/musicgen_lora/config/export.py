"""Settings of `merge`, `export` and `import`, which write models for other programs and people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.config.adapters import AdaptersSettings
from musicgen_lora.config.kinds import STRICT, Base, Place, settings_of_command


def _hub_name(name: str) -> str:
    """Check a name by the Hub's own rule; an empty one means none."""
    part = r"\w([\w.-]{0,94}\w)?"
    is_one = re.fullmatch(f"{part}/{part}", name, re.ASCII)
    if name and (not is_one or re.search(r"--|\.\.|\.git$", name)):
        raise ValueError("not a Hub name; give OWNER/NAME, such as facebook/musicgen-small")
    return name


HubName = Annotated[str, AfterValidator(_hub_name)]


@dataclass(config=STRICT)
class HubSettings:
    """How an export is published on the Hub."""

    hub_base: HubName = ""
    """The base's name on the Hub, such as facebook/musicgen-small, if model_path is a folder."""
    push_to_hub: str | None = None
    """Also upload the finished folder to this repository on the Hub: USER/NAME."""
    public: bool = False
    """Make that repository public; otherwise it is private."""
    dry_run: bool = False
    """Show what would be uploaded without uploading it."""


@dataclass(config=STRICT)
class MergingSettings:
    """What is read, and where the result goes."""

    model_path: Base = EMBEDDED_NAME
    """Base model the adapters were trained on: a folder, a hub id, or the embedded tiny-beats."""
    output_dir: Place = Path("finetune/output/merged")
    """Where the checkpoint goes: a new or empty folder."""


@settings_of_command
@dataclass(config=STRICT)
class MergeSettings(HubSettings, AdaptersSettings, MergingSettings):
    """Merge adapters into a base model: a full checkpoint in Hugging Face format."""


@dataclass(config=STRICT)
class ExportingSettings:
    """What is read, and where the result goes."""

    format: Literal["audiocraft", "peft"] = "audiocraft"
    """audiocraft: a model for Meta's own library, adapters merged into the base; peft: one adapter
    to share, with a model card and samples, and nothing that reveals your machine or files."""
    model_path: Base = EMBEDDED_NAME
    """Base model: a folder, a hub id, or the embedded tiny-beats; adapters are optional for
    audiocraft."""
    output_dir: Place = Path("finetune/output/exported")
    """Where the files go: a new or empty folder."""
    previews: Place | None = None
    """WAV files for the model card (format peft): a folder written by generate, or one of the
    training's previews (default: the newest previews beside the adapter)."""
    evaluation: Place | None = None
    """An evaluation of this adapter, as written by evaluate, to cite in the card of format peft."""


@settings_of_command
@dataclass(config=STRICT)
class ExportSettings(HubSettings, AdaptersSettings, ExportingSettings):
    """Export a model for another program, or an adapter to share."""


@dataclass(config=STRICT)
class ImportingSettings:
    """What is read, and where the result goes."""

    format: Literal["audiocraft"] = "audiocraft"
    """audiocraft: Meta's own library."""
    input_dir: Place = Path("finetune/output/exported")
    """Folder with state_dict.bin and compression_state_dict.bin."""
    model_path: Base | None = None
    """A MusicGen in Hugging Face format, such as facebook/musicgen-small, for the parts that the
    export only names: the text encoder and, in Meta's releases, the codec."""
    output_dir: Place = Path("finetune/output/imported")
    """Where the model goes: a new or empty folder."""


@settings_of_command
@dataclass(config=STRICT)
class ImportSettings(ImportingSettings):
    """Convert another program's model into a base model in Hugging Face format."""
