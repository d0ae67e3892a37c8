"""Settings of `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from musicgen_lora.config.cluster import ClusterSettings
from musicgen_lora.config.kinds import (
    STRICT,
    Few,
    Place,
    Positive,
    Seconds,
    Seed,
    settings_of_command,
)
from musicgen_lora.errors import UserError


@dataclass(config=STRICT)
class DatasetSettings:
    """What is read, and where the dataset goes."""

    input_dir: Place | None = None
    """Folder with your audio; read recursively, never changed."""
    output_dir: Place = Path("finetune/data")
    """Where the dataset goes: train/*.wav, the metadata and the report."""
    metadata_file: str = "metadata.json"
    """Name of the metadata file in the dataset."""
    restore_removed: bool = False
    """Bring back the clips that were deleted from the metadata."""
    num_workers: Annotated[int, Field(ge=0, le=256)] = 2
    """Worker processes that analyse and cut; 0 does it in the main process."""
    seed: Seed = 0
    """Seed of the example beats and of the captions' wording."""


@dataclass(config=STRICT)
class ExampleSettings:
    """Example beats instead of your own audio."""

    create_example: bool = False
    """Make example beats from a recorded TR-808 instead of reading input_dir."""
    num_samples: Positive = 10
    """How many example beats to make."""


@dataclass(config=STRICT)
class CaptionSettings:
    """What the captions say."""

    default_text: str = "hip hop 808 beat"
    """Start of the caption of audio that comes without one; it should name the genre."""
    trigger_word: str = ""
    """Word put in front of every caption, by which prompts call up the style; none if empty."""
    caption_variants: Few = 4
    """Wordings of each caption; training picks among them."""
    tagger: Literal["musicnn", "clap"] | None = None
    """Model that adds the genres, moods and instruments it hears to the captions: musicnn, which is
    bundled, or a clap of your own; None adds none."""
    clap_path: Place | None = None
    """Folder of the CLAP model (Hugging Face format) for tagger clap."""


@dataclass(config=STRICT)
class ClipSettings:
    """What becomes a clip."""

    max_clip: Seconds = 30.0
    """Longer files are cut at bar lines into clips of at most this many seconds."""
    min_window: Seconds = 15.0
    """Clips of such a file have at least this many seconds (at most half of max_clip). A shorter
    passage between two pauses is kept if it is whole bars; what is left out is listed."""
    min_clip: Seconds = 1.0
    """Files shorter than this many seconds are left out and listed."""
    one_shots: Literal["leave_out", "caption"] = "leave_out"
    """Single hits, which aren't beats: leave_out drops and lists them, caption keeps them and says
    what they are. Those with their own caption are always kept."""
    repeat_to: Seconds | None = None
    """Loops of whole bars are repeated until they last this many seconds; None leaves them."""


@dataclass(config=STRICT)
class SoundSettings:
    """What clips sound like."""

    loudness: Annotated[float, Field(ge=-50.0, le=-5.0)] | None = -16.0
    """Loudness of each clip in LUFS, as far as its true peak stays below -1 dBTP; None leaves the
    levels alone."""
    limit: bool = False
    """Bring clips whose peaks keep them below that loudness up to it with a look-ahead limiter,
    which turns their highest peak down by at most 6 dB."""
    mono_fold: bool = False
    """Fold clips to mono. What is out of phase between the channels, and would cancel in the mean
    that a mono model hears, is inverted first, so that a bass survives."""
    vocals: Literal["keep", "flag", "remove"] = "keep"
    """flag marks clips with vocals in the metadata, remove takes the vocals out (extra vocals:
    demucs)."""
    sample_rate: Annotated[int, Field(ge=8_000, le=192_000)] = 32_000
    """Sample rate of the dataset's audio, in Hz; MusicGen's codec uses 32,000."""


@settings_of_command
@dataclass(config=STRICT)
class PrepareSettings(
    ClusterSettings, SoundSettings, ClipSettings, CaptionSettings, ExampleSettings, DatasetSettings
):
    """Turn a folder of audio into a dataset, or make an example dataset."""

    def __post_init__(self) -> None:
        if self.tagger == "clap" and self.clap_path is None:
            raise UserError("--tagger clap needs --clap_path, a folder with a CLAP model.")
        if self.clap_path is not None and self.tagger != "clap":
            raise UserError("--clap_path needs --tagger clap: add that, or leave --clap_path out.")
        if self.min_clip > self.max_clip:
            raise UserError(
                f"--min_clip {self.min_clip:g} is more than --max_clip {self.max_clip:g}: no clip "
                "would be left; lower --min_clip."
            )
        if self.limit and self.loudness is None:
            raise UserError("--limit brings clips to --loudness, which is None: set one.")
