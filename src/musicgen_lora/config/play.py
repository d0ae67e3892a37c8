"""Settings of `generate` and `evaluate`, which sample in the same way."""

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
    AskedFormat,
    Base,
    DecodingPrecision,
    Few,
    Guidance,
    Place,
    Seconds,
    Seed,
    Strengths,
    Temperature,
    TopK,
    settings_of_command,
)
from musicgen_lora.errors import UserError
from musicgen_lora.plural import count


@dataclass(config=STRICT)
class SamplingSettings:
    """How clips are sampled."""

    duration: Annotated[float, Field(gt=0.0, le=600.0)] = 10.0
    """Seconds of each generated clip; beyond what the base was trained on, in overlapping
    windows."""
    guidance_scale: Guidance | None = None
    """How closely to follow the prompt; 1 turns guidance off (default: what the base recommends,
    else 3)."""
    top_k: TopK = 250
    """Sample from the k most likely tokens; 0 means all, 1 is greedy."""
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Of those, sample from the most likely that add up to this probability; 0 means all."""
    temperature: Temperature | None = None
    """Above 1 is wilder, below 1 safer (default: what the base recommends, else 1)."""
    seed: Seed = 0
    """Seed of the first clip; the next one gets seed + 1, and so on."""
    batch_size: Few = 4
    """Clips that the model processes together."""


@dataclass(config=STRICT)
class PlayingSettings:
    """What generates what, and where it goes."""

    base_model_path: Base = EMBEDDED_NAME
    """Base model: a folder in Hugging Face format, a hub id, or the embedded tiny-beats; used alone
    if there are no adapters."""
    prompts: list[str] = dataclasses.field(default_factory=list)
    """What to generate: one prompt per clip."""
    melody: Place | None = None
    """Audio file whose melody all clips follow; for melody models such as
    facebook/musicgen-melody."""
    output_dir: Place = Path("finetune/output/generated")
    """Where the audio files and their JSON go."""
    precision: DecodingPrecision = "auto"
    """Precision of the weights while generating; auto measures on this computer and takes the
    fastest that is nearly lossless; int8 is for CPUs."""


@dataclass(config=STRICT)
class WritingSettings:
    """What the clips should be like, and what is written for each."""

    bpm: Annotated[float, Field(ge=20.0, le=400.0)] | None = None
    """Tempo to ask for, for clips or loops; takes are judged by it."""
    bars: Annotated[int, Field(ge=1, le=64)] | None = None
    """Make seamless loops of exactly this many bars at that tempo (default: the one that the prompt
    states); None makes clips."""
    key: str = ""
    """Key to ask for, such as "C# minor"; none if empty."""
    best_of: Annotated[int, Field(ge=1, le=1000)] = 1
    """Takes per prompt; the best by tempo, loop seam and audible faults is kept."""
    loop_tries: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many takes of a loop, or of what joins a recording, to try until one fits; if none does,
    the best is kept."""
    format: AskedFormat = "auto"
    """wav is 16-bit, wav24 and flac are 24-bit; wav_float is 32-bit float; auto is wav, and for a
    recording what keeps its samples."""
    loudness: Annotated[float, Field(ge=-50.0, le=-5.0)] | None = None
    """Loudness of each clip in LUFS, as far as its peaks allow; None leaves the levels alone,
    except for peaks above full scale."""
    midi: bool = False
    """Also write each clip as MIDI: kicks, snares, hats, and the 808 line with slides."""
    spectrogram: bool = False
    """Also write each clip's spectrogram as a picture."""


@dataclass(config=STRICT)
class PromptingSettings:
    """Where prompts come from besides --prompts, and how they act."""

    prompts_file: Place | None = None
    """File with prompts: text with one per line, or JSON or CSV with settings for each prompt."""
    from_captions: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Also use this many of the captions that the adapter was trained on, picked by the seed."""
    variations: Annotated[int, Field(ge=1, le=1000)] = 1
    """Clips per prompt, each with its own seed."""
    change_at: list[Annotated[float, Field(gt=0.0)]] = dataclasses.field(default_factory=list)
    """Seconds at which the next of --prompts takes over; all of them then make one clip."""
    negative_prompt: Annotated[str, Field(max_length=10_000)] = ""
    """What guidance steers away from; no effect if guidance_scale is 1."""
    guidance_end: Guidance | None = None
    """Guidance scale at the clip's end, reached linearly; None keeps it constant."""


@dataclass(config=STRICT)
class ExtendingSettings:
    """Recordings to continue, or to regenerate bars of."""

    continue_from: Place | None = None
    """Recording to continue; duration is what is added."""
    continue_at: Seconds | None = None
    """Second of the recording to continue from; what comes after it is dropped (default: its
    end)."""
    heard: Seconds | None = None
    """Seconds of the recording, before the new part, that the model hears (default: all, or 40 % of
    its window if all would fill that)."""
    regenerate: Place | None = None
    """Recording whose bars from_bar to to_bar are regenerated."""
    from_bar: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """First bar to regenerate, counted from 1."""
    to_bar: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Last bar to regenerate."""


@dataclass(config=STRICT)
class ListeningSettings:
    """Where the audio goes besides the files."""

    play: bool = False
    """Play clips while they are made; a loop, or the best of several takes, once it is chosen."""
    stdout: Literal["s16", "f32", "wav"] | None = None
    """Also write the audio to standard output while it is made, for pipes: raw little-endian
    samples, 16-bit or float, or a WAV; messages go to standard error."""


@settings_of_command
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
                "--play and --stdout need the audio to be made on this computer: leave them out "
                "with --ray."
            )


def _check_changes(settings: GenerateSettings) -> None:
    """Check that prompts that follow each other have times within their clip."""
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
            f"{said}: times must increase and lie within the clip's {settings.duration:g} s."
        )
    if settings.bars is not None or settings.regenerate is not None:
        raise UserError(f"{said}: --bars and --regenerate take one prompt; leave it out.")


def _check_recordings(settings: GenerateSettings) -> None:
    """Check that settings about a recording have one, and only one."""
    has_bars = settings.from_bar is not None or settings.to_bar is not None
    if settings.regenerate is not None and settings.continue_from is not None:
        raise UserError("--regenerate and --continue_from: pass only one of them.")
    if settings.regenerate is None and has_bars:
        raise UserError("--from_bar and --to_bar need a recording; add --regenerate FILE.")
    if settings.regenerate is not None:
        if settings.from_bar is None or settings.to_bar is None:
            raise UserError("--regenerate needs --from_bar and --to_bar, the bars to regenerate.")
        if settings.from_bar > settings.to_bar:
            raise UserError(
                f"--from_bar {settings.from_bar} is after --to_bar {settings.to_bar}; swap them."
            )
    if settings.continue_from is None and settings.continue_at is not None:
        raise UserError("--continue_at needs a recording; add --continue_from.")
    given = settings.regenerate or settings.continue_from
    if given is None:
        if settings.heard is not None:
            raise UserError("--heard needs a recording; add --continue_from or --regenerate.")
        return
    for name in ("bars", "loudness"):
        if getattr(settings, name) is not None:
            raise UserError(
                f"--{name} is for whole clips; leave it out with --continue_from and --regenerate."
            )


@dataclass(config=STRICT)
class MeasuringSettings:
    """What is measured, and where the report goes."""

    base_model_path: Base = EMBEDDED_NAME
    """Base model the adapter was trained on."""
    lora_model_path: Adapters = dataclasses.field(
        default_factory=lambda: [Path("finetune/output/best_model")]
    )
    """Adapter folder; several, such as output_dir/checkpoints/*, are compared side by side."""
    strengths: Strengths = dataclasses.field(default_factory=list)
    """Strengths, 0 to 2, at which to measure each adapter, such as 0.5 1 (default: 1)."""
    output_dir: Place = Path("finetune/output/evaluation")
    """Where report.html, report.json, plots/ and audio/ go."""
    compare: bool = False
    """Also generate with the base, from the same prompts and seeds; several adapters or strengths
    are always compared with it."""
    prompts: list[str] = dataclasses.field(default_factory=list)
    """What to generate (default: captions of held-out clips, then 808 prompts)."""
    num_prompts: Few = 8
    """How many prompts to use if none are given."""
    num_off_style: Annotated[int, Field(ge=0, le=10_000)] = 2
    """How many extra prompts of other styles to use when comparing with the base: they show what
    the adapter does to music it wasn't meant to change."""
    precision: DecodingPrecision = "auto"
    """Precision of the weights while clips are generated, as `generate` has it; losses are always
    measured in fp32."""


@dataclass(config=STRICT)
class HeldOutSettings:
    """The clips that losses are measured on."""

    data_dir: Place | None = None
    """Dataset with the held-out clips (default: the one recorded in the adapter)."""
    metadata_file: str = "metadata.json"
    """Name of the metadata file in data_dir."""
    from_tokens: bool = False
    """Use the held-out clips as encoded for training, without reading the audio."""
    other_data_dir: Place | None = None
    """Dataset of other music; the loss on it shows what the adapter forgot (default: for
    tiny-beats, clips of its own styles)."""


@dataclass(config=STRICT)
class HearingSettings:
    """Models that listen to the clips, besides those that come with this package."""

    clap: str | None = None
    """CLAP, to measure how well clips match their prompts, and as one more distance: a folder or
    hub id such as laion/larger_clap_general."""
    embeddings: list[str] = dataclasses.field(default_factory=list)
    """More models for distances: folders or hub ids of a CLAP, HuBERT, wav2vec 2.0 or WavLM."""


@settings_of_command
@dataclass(config=STRICT)
class EvaluateSettings(
    ClusterSettings, SamplingSettings, HearingSettings, HeldOutSettings, MeasuringSettings
):
    """Measure what an adapter changed, on held-out clips and on generated audio."""

    def __post_init__(self) -> None:
        if self.duration > 30.0:
            raise UserError(
                f"--duration {self.duration:g}: evaluation compares clips of up to 30 s; lower it."
            )
