"""Settings of `generate` and `evaluate`, which play in the same way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.config.adapters import AdaptersSettings
from musicgen_lora.config.cluster import ClusterSettings
from musicgen_lora.config.kinds import (
    STRICT,
    Adapters,
    DecodingPrecision,
    Few,
    Guidance,
    Seconds,
    Seed,
    SoundFormat,
    Strengths,
    Temperature,
    TopK,
)
from musicgen_lora.errors import UserError
from musicgen_lora.plural import count


@dataclass(config=STRICT)
class SamplingSettings:
    """How clips are drawn."""

    duration: Annotated[float, Field(gt=0.0, le=600.0)] = 10.0
    """Seconds of each generated clip; past what the base was trained on it goes on in windows."""
    guidance_scale: Guidance | None = None
    """How strongly the prompt is followed; 1 switches guidance off (default: what the base advises,
    else 3)."""
    top_k: TopK = 250
    """Draw from the k likeliest tokens; 0 takes all, 1 is greedy."""
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Of those, draw from the likeliest whose probabilities add up to this share; 0 takes all."""
    temperature: Temperature | None = None
    """Above 1 is wilder, below is safer (default: what the base advises, else 1)."""
    seed: Seed = 0
    """Seed of the first clip; the next has seed + 1, and so on."""
    batch_size: Few = 4
    """Clips that go through the model together."""


@dataclass(config=STRICT)
class PlayingSettings:
    """Who plays what, and where it goes."""

    base_model_path: str = EMBEDDED_NAME
    """Base model: a folder in Hugging Face's format, a hub id, or the embedded tiny-beats; without
    adapters it plays alone."""
    prompts: list[str] = dataclasses.field(default_factory=list)
    """What to play, a prompt a clip."""
    melody: Path | None = None
    """Audio file whose melody all clips follow; for melody models such as
    facebook/musicgen-melody."""
    output_dir: Path = Path("finetune/output/generated")
    """Where the sound files and their JSON go."""
    precision: DecodingPrecision = "auto"
    """Precision of the weights while decoding; auto takes the fastest on this computer that is near
    lossless, both as measured; int8 is for CPUs."""


@dataclass(config=STRICT)
class WritingSettings:
    """What is asked of the clips, and what is written of them."""

    bpm: Annotated[float, Field(ge=20.0, le=400.0)] | None = None
    """Tempo to ask for, of clips or loops; takes are measured against it."""
    bars: Annotated[int, Field(ge=1, le=64)] | None = None
    """Make loops of exactly this many bars at that tempo, whose end leads into their beginning;
    None makes clips."""
    key: str = ""
    """Key to ask for, such as "C# minor"; none if empty."""
    best_of: Annotated[int, Field(ge=1, le=1000)] = 1
    """Takes of each prompt, of which the best is kept by tempo, seam and damage."""
    loop_tries: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many takes of a loop, or of what joins a recording, are played until one fits; if none
    does, the best is kept."""
    format: SoundFormat = "wav"
    """wav has 16 bits, wav24 and flac 24; wav_float is 32 bits of float."""
    loudness: Annotated[float, Field(ge=-50.0, le=-5.0)] | None = None
    """Loudness of each clip in LUFS, as far as its peaks allow; None leaves the levels alone, but
    for peaks beyond full scale."""
    midi: bool = False
    """Write what was played as MIDI as well: kicks, snares, hats, and the 808 line with slides."""
    spectrogram: bool = False
    """Write a picture of each clip's spectrum as well."""


@dataclass(config=STRICT)
class PromptingSettings:
    """Where prompts come from beside --prompts, and how they act."""

    prompts_file: Path | None = None
    """File with prompts: text, one a line, or JSON or CSV with settings of each prompt's own."""
    from_captions: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Play so many of the captions that the adapter was trained on, drawn by the seed."""
    variations: Annotated[int, Field(ge=1, le=1000)] = 1
    """Clips of each prompt, each with its own seed."""
    change_at: list[Annotated[float, Field(gt=0.0)]] = dataclasses.field(default_factory=list)
    """Seconds at which the next of --prompts takes over: they are one clip then."""
    negative_prompt: Annotated[str, Field(max_length=10_000)] = ""
    """What guidance steers away from; no effect if guidance_scale is 1."""
    guidance_end: Guidance | None = None
    """Guidance scale at the clip's end, reached in a straight line; None leaves it as it is."""


@dataclass(config=STRICT)
class ExtendingSettings:
    """Recordings that are gone on with, or of which a part is played anew."""

    continue_from: Path | None = None
    """Recording to go on with; duration is what is added."""
    continue_at: Seconds | None = None
    """Second of the recording from which the model goes on; what comes after is left out (default:
    its end)."""
    heard: Seconds | None = None
    """Seconds of the recording before what is played that the model hears (default: all, or where
    that is no less than its window, 40 % of the window)."""
    regenerate: Path | None = None
    """Recording of which the bars from_bar to to_bar are played anew."""
    from_bar: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """First bar that is played anew, counted from 1."""
    to_bar: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Last bar that is played anew."""


@dataclass(config=STRICT)
class ListeningSettings:
    """Where the sound goes beside the files."""

    play: bool = False
    """Play clips while they are made; a loop, or the best of several takes, once it is chosen."""
    stdout: Literal["s16", "f32", "wav"] | None = None
    """Write the sound to standard output as well while it is made, for pipes: raw samples of 16
    bits or of floats, little-endian, or a WAV; what the program says goes to standard error."""


@dataclass(config=STRICT)
class GenerateSettings(
    ClusterSettings,
    WritingSettings,
    ListeningSettings,
    ExtendingSettings,
    PromptingSettings,
    SamplingSettings,
    AdaptersSettings,
    PlayingSettings,
):
    """Generate audio with a base model, with or without an adapter."""

    def __post_init__(self) -> None:
        _check_changes(self)
        _check_recordings(self)
        if self.ray is not None and (self.play or self.stdout is not None):
            raise UserError(
                "--play and --stdout give the sound while this computer makes it: leave them out "
                "with --ray."
            )


def _check_changes(settings: GenerateSettings) -> None:
    """Prompts that follow each other have times within their clip."""
    times = settings.change_at
    if not times:
        return
    said = f"--change_at {' '.join(f'{at:g}' for at in times)}"
    if len(times) != len(settings.prompts) - 1:
        raise UserError(
            f"{said}: {count(len(times), 'time')} for {count(len(settings.prompts), 'prompt')}; "
            "give one for each prompt after the first."
        )
    if sorted(set(times)) != times or times[-1] >= settings.duration:
        raise UserError(
            f"{said}: give times that rise and lie within the clip's {settings.duration:g} s."
        )
    if settings.bars is not None or settings.regenerate is not None:
        raise UserError(f"{said}: --bars and --regenerate have one prompt; leave it out.")


def _check_recordings(settings: GenerateSettings) -> None:
    """What is said of a recording has one, and one only."""
    has_bars = settings.from_bar is not None or settings.to_bar is not None
    if settings.regenerate is not None and settings.continue_from is not None:
        raise UserError("--regenerate and --continue_from: give one of them.")
    if settings.regenerate is None and has_bars:
        raise UserError("--from_bar and --to_bar are bars of a recording; give --regenerate FILE.")
    if settings.regenerate is not None:
        if settings.from_bar is None or settings.to_bar is None:
            raise UserError("--regenerate needs --from_bar and --to_bar, the bars to play anew.")
        if settings.from_bar > settings.to_bar:
            raise UserError(
                f"--from_bar {settings.from_bar} is after --to_bar {settings.to_bar}; swap them."
            )
    if settings.continue_from is None and settings.continue_at is not None:
        raise UserError("--continue_at is of a recording; give --continue_from.")
    given = settings.regenerate or settings.continue_from
    if given is None:
        if settings.heard is not None:
            raise UserError("--heard is of a recording; give --continue_from or --regenerate.")
        return
    for name in ("bars", "loudness"):
        if getattr(settings, name) is not None:
            raise UserError(
                f"--{name} is of whole clips; leave it out with --continue_from and --regenerate."
            )


@dataclass(config=STRICT)
class MeasuringSettings:
    """What is measured, and where the report goes."""

    base_model_path: str = EMBEDDED_NAME
    """Base model that the adapter belongs to."""
    lora_model_path: Adapters = dataclasses.field(
        default_factory=lambda: [Path("finetune/output/best_model")]
    )
    """Adapter folder; several, such as output_dir/checkpoints/*, are measured side by side."""
    strengths: Strengths = dataclasses.field(default_factory=list)
    """Strengths, 0 to 2, at which each adapter is measured: 0.5 1 (default: 1)."""
    output_dir: Path = Path("finetune/output/evaluation")
    """Where report.html, report.json, plots/ and audio/ go."""
    compare: bool = False
    """Generate with the base as well, at the same prompts and seeds; several adapters or strengths
    are always compared with it."""
    prompts: list[str] = dataclasses.field(default_factory=list)
    """What to play (default: captions of held-out clips, then 808 prompts)."""
    num_prompts: Few = 8
    """How many prompts, where none are given."""
    num_off_style: Annotated[int, Field(ge=0, le=10_000)] = 2
    """How many prompts of other styles to play besides, where the base plays too: what the adapter
    does to music that it wasn't asked to change."""
    precision: DecodingPrecision = "auto"
    """Precision of the weights while clips are generated, as `generate` has it; losses are always
    measured in fp32."""


@dataclass(config=STRICT)
class HeldOutSettings:
    """The clips that losses are measured on."""

    data_dir: Path | None = None
    """Dataset with the held-out clips (default: the one that the adapter recorded)."""
    metadata_file: str = "metadata.json"
    """Name of the metadata inside data_dir."""
    from_tokens: bool = False
    """Take the held-out clips as they were encoded for training, without a look at the audio."""
    other_data_dir: Path | None = None
    """Dataset of other music; the loss on it says what the adapter forgot (default: for
    tiny-beats, clips of its own styles)."""


@dataclass(config=STRICT)
class HearingSettings:
    """Models that hear the clips, beside those that come with this package."""

    clap: str | None = None
    """CLAP, for how well clips match their prompts and as a distance: a folder or hub id such as
    laion/larger_clap_general."""
    embeddings: list[str] = dataclasses.field(default_factory=list)
    """Further models for distances: folders or hub ids of a CLAP, HuBERT, wav2vec 2.0 or WavLM."""


@dataclass(config=STRICT)
class EvaluateSettings(
    ClusterSettings, SamplingSettings, HearingSettings, HeldOutSettings, MeasuringSettings
):
    """Measure what an adapter changed, on held-out clips and on generated audio."""

    def __post_init__(self) -> None:
        if self.duration > 30.0:
            raise UserError(
                f"--duration {self.duration:g}: evaluation compares clips of up to 30 s."
            )
