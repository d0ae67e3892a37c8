"""Settings of `generate` and `evaluate`, which play in the same way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.config.kinds import (
    STRICT,
    Adapters,
    Few,
    Guidance,
    Seed,
    SoundFormat,
    Strengths,
    Temperature,
    TopK,
)


@dataclass(config=STRICT)
class SamplingSettings:
    """How clips are drawn."""

    duration: Annotated[float, Field(gt=0.0, le=30.0)] = 10.0
    """Seconds of each generated clip; past what the base was trained on it goes on in windows."""
    guidance_scale: Guidance = 3.0
    """How strongly the prompt is followed; 1 switches guidance off."""
    top_k: TopK = 250
    """Draw from the k likeliest tokens; 0 takes all, 1 is greedy."""
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Of those, draw from the likeliest that make this share of the probability; 0 takes all."""
    temperature: Temperature = 1.0
    """Above 1 is wilder, below is safer."""
    seed: Seed = 0
    """Of the first clip; the next has seed + 1, and so on."""
    batch_size: Few = 4
    """Clips that go through the model together."""


@dataclass(config=STRICT)
class PlayingSettings:
    """Who plays what, and where it goes."""

    base_model_path: str = EMBEDDED_NAME
    """Base model: a folder in Hugging Face's format, a hub id, or the embedded tiny-beats."""
    lora_model_path: Adapters = dataclasses.field(default_factory=list)
    """Adapter folders, such as output_dir/best_model; several are mixed, none plays the base."""
    strength: Strengths = dataclasses.field(default_factory=list)
    """Of each adapter, 0 to 2: 1 is the adapter as it was trained, 0 the base (default: 1 each)."""
    prompts: list[str] = dataclasses.field(default_factory=list)
    """What to play, a prompt a clip."""
    melody: Path | None = None
    """Audio file whose tune all clips follow; for melody models such as
    facebook/musicgen-melody."""
    output_dir: Path = Path("finetune/output/generated")
    """Where the sound files and their JSON go."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Of the weights while decoding; auto takes the fastest on this computer that is near lossless,
    both as measured; int8 is for CPUs."""


@dataclass(config=STRICT)
class WritingSettings:
    """What is asked of the clips, and what is written of them."""

    bpm: Annotated[float, Field(ge=20.0, le=400.0)] | None = None
    """Tempo to ask for, of clips or loops; takes are measured against it."""
    bars: Annotated[int, Field(ge=1, le=64)] | None = None
    """Make loops of exactly so many bars of that tempo, which go on in their own beginning; None
    makes clips."""
    key: str = ""
    """Key to ask for, such as "C# minor"; none if empty."""
    best_of: Annotated[int, Field(ge=1, le=1000)] = 1
    """Takes of each prompt, of which the best is kept by tempo, seam and damage."""
    loop_tries: Annotated[int, Field(ge=1, le=1000)] = 8
    """A loop is played anew until it fits, up to so many times; then the best is kept."""
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
class GenerateSettings(WritingSettings, SamplingSettings, PlayingSettings):
    """Generate audio with a base model, with or without an adapter."""


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
class EvaluateSettings(SamplingSettings, HearingSettings, HeldOutSettings, MeasuringSettings):
    """Measure what an adapter changed, on held-out clips and on generated audio."""
