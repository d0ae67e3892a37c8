"""The settings of each command: one dataclass each, filled from a YAML file and flags.

pydantic enforces types and ranges for both, tyro turns the fields into flags. The command line
wins over the file, the file over the defaults here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from musicgen_lora import EMBEDDED_NAME

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, str_max_length=10_000)


def _not_tiny(temperature: float) -> float:
    """Logits divided by less would not be finite."""
    if 0.0 < temperature < 0.001:
        raise ValueError("should be 0, which is greedy, or at least 0.001")
    return temperature


Positive = Annotated[int, Field(ge=1, le=10**9)]
Few = Annotated[int, Field(ge=1, le=10_000)]
"""Of what is held in memory at once."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Seconds = Annotated[float, Field(gt=0.0, le=3600.0)]
Guidance = Annotated[float, Field(ge=1.0, le=1000.0)]
Temperature = Annotated[float, Field(ge=0.0, le=1000.0), AfterValidator(_not_tiny)]
TopK = Annotated[int, Field(ge=0, le=10**9)]
LoraTarget = Literal[
    "attention",
    "feed_forward",
    "heads",
    "embeddings",
    "text_projection",
    "melody_projection",
    "text_encoder",
]


@dataclass(config=STRICT)
class PrepareSettings:
    """Turn a folder of audio into a dataset, or make an example dataset."""

    input_dir: Path | None = None
    """Folder with your audio; read recursively, never changed."""
    output_dir: Path = Path("finetune/data")
    """Where the dataset goes: train/*.wav, the metadata and the report."""
    metadata_file: str = "metadata.json"
    """Name of the metadata inside the dataset."""
    default_text: str = "hip hop 808 beat"
    """Base of the captions of audio that brings none; it should name the genre."""
    trigger_word: str = ""
    """Word put in front of every caption, to call the style by; none if empty."""
    caption_variants: Few = 4
    """Wordings of each caption; training draws among them."""
    create_example: bool = False
    """Make example beats from a recorded TR-808 instead of reading input_dir."""
    num_samples: Positive = 10
    """How many example beats."""
    max_clip: Seconds = 30.0
    """Longer files are cut on bar lines into clips of at most this many seconds."""
    min_window: Seconds = 15.0
    """Clips of such a file have at least this many seconds (at most half of max_clip). What lies
    between two pauses stays, shorter, where it is whole bars; what is left out is listed."""
    min_clip: Seconds = 1.0
    """Shorter files are left out and listed."""
    one_shots: Literal["leave_out", "caption"] = "leave_out"
    """Single hits, which are no beats: leave_out lists them, caption keeps them and says what they
    are. Those with a caption of their own stay."""
    repeat_to: Seconds | None = None
    """Loops of whole bars are repeated until they have so many seconds; None leaves them."""
    loudness: Annotated[float, Field(ge=-50.0, le=-5.0)] | None = -16.0
    """Loudness of each clip in LUFS, as far as its true peak stays below -1 dBTP; None leaves
    the levels alone."""
    limit: bool = False
    """Clips whose peaks keep them below that loudness get there by a look-ahead limiter, which
    turns their highest peak down by 6 dB at most."""
    mono_fold: bool = False
    """Clips become mono. What is out of phase between the channels, and gone from their mean, which
    is what a mono model hears, is turned round first: a bass stays."""
    vocals: Literal["keep", "flag", "remove"] = "keep"
    """flag says in the metadata which clips have vocals, remove takes them out (extra vocals:
    demucs)."""
    tagger: Literal["musicnn", "clap"] | None = None
    """Adds genres, moods and instruments that a model hears to the captions: musicnn, which is
    bundled, or a clap of your own; None says nothing that isn't known otherwise."""
    clap_path: Path | None = None
    """Folder of the CLAP model (Hugging Face's format) for tagger clap."""
    sample_rate: Annotated[int, Field(ge=8_000, le=192_000)] = 32_000
    """Of the dataset's audio, in Hz; MusicGen's codec has 32,000."""
    restore_removed: bool = False
    """Bring back the clips that were deleted from the metadata."""
    num_workers: Annotated[int, Field(ge=0, le=256)] = 2
    """Processes that analyse and cut; 0 works in the command's own."""
    seed: Seed = 0
    """Of the example beats and the captions' wordings."""


@dataclass(config=STRICT)
class TokeniseSettings:
    """Encode a dataset's audio with the codec; training does it too for what is missing."""

    model_path: str = EMBEDDED_NAME
    """Base model whose codec is used: a folder, a hub id, or the embedded tiny-beats."""
    data_dir: Path = Path("finetune/data")
    """Folder of the dataset."""
    metadata_file: str = "metadata.json"
    """Name of the metadata inside data_dir."""
    pack: Path | None = None
    """File for the tokens, captions and split of all clips as well, for training on a machine that
    has neither the audio nor libraries that read it: python -m musicgen_lora.training.packed."""


@dataclass(config=STRICT)
class TrainSettings:
    """Train a LoRA adapter on a dataset."""

    model_path: str = EMBEDDED_NAME
    """Base model: a folder in Hugging Face's format, a hub id, or the embedded tiny-beats."""
    data_dir: Path = Path("finetune/data")
    """Folder of the dataset."""
    metadata_file: str = "metadata.json"
    """Name of the metadata inside data_dir."""
    from_tokens: bool = False
    """Train on what the tokenise command made, without a look at the audio, which may be absent: a
    large dataset starts at once, on a network drive too. Audio changed since then goes unseen."""
    output_dir: Path = Path("finetune/output")
    """Where checkpoints/, best_model/, metrics.jsonl and run.json go."""
    adapter: Literal["lora", "rslora", "dora"] = "lora"
    """lora; rslora scales by lora_alpha / sqrt(lora_rank), for high ranks; dora learns the
    weights' magnitudes too, and takes longer a step."""
    lora_rank: Annotated[int, Field(ge=1, le=4096)] = 12
    """Rank of the adapter."""
    lora_alpha: Annotated[int, Field(ge=1, le=10**6)] = 24
    """The adapter's product is scaled by lora_alpha / lora_rank."""
    lora_dropout: Share = 0.0
    """Dropout on the adapter's input."""
    lora_init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"
    """How the adapter starts; pissa and olora take its first weights out of the base's, and are
    saved with twice the rank."""
    lora_targets: list[LoraTarget] = dataclasses.field(
        default_factory=lambda: ["attention", "feed_forward"]
    )
    """Parts of the model that carry the adapter."""
    lora_layers: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    """Decoder layers whose attention and feed_forward carry it, like 0-11 or 0,4,8-11; all if
    empty."""
    lora_modules: str = ""
    """Regular expression of full module names, in place of lora_targets."""
    trainable: Literal["lora", "full", "full_with_text"] = "lora"
    """lora trains an adapter; full every weight of the language model; full_with_text those of
    the text encoder too (for pre-training a model of your own)."""
    frozen_modules: str = ""
    """Regular expression of parameter names, anywhere in them, that full training leaves as they
    are, like layers\\.0\\.encoder_attn."""
    fsdp: bool = False
    """Several processes share the weights, gradients and optimizer state of full training, so that
    larger models fit; under torchrun."""
    optimizer: Literal["adamw", "adamw8bit", "prodigy", "muon"] = "adamw"
    """adamw8bit holds AdamW's state in 8 bits, prodigy finds its own rate (both are extras), muon
    is for full training: the layers' matrices by Muon, the rest by AdamW."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak learning rate (default: for an adapter what the base advises, 2e-3 for tiny-beats, else
    3e-4; 1 for prodigy, which multiplies its own by it)."""
    text_encoder_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak rate of the text encoder, where it is trained: a rate that is right for the decoder may
    make it unlearn the words (default: learning_rate)."""
    lr_schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """How the rate falls after the warm-up; wsd stays constant and falls over the last 30 %."""
    warmup_share: Share = 0.05
    """Share of all steps over which the rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.01
    """Decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0.0, le=1e9)] = 1.0
    """Gradients are clipped to this norm."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Validate and publish a running average of the trained weights, such as 0.99; None: off."""
    codebook_weights: list[Annotated[float, Field(ge=0.0, le=1000.0)]] | None = None
    """A weight of each codebook's loss, such as 2 1 1 1 (default: all alike)."""
    batch_size: Few = 2
    """Clips that go through the model together; halved, with as many more batches a step, where
    memory runs out."""
    gradient_accumulation_steps: Few = 4
    """Batches that make one optimizer step."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass: much less memory, about a third slower."""
    group_by_length: bool = False
    """Clips of like length share a step: less padding where lengths differ much."""
    num_epochs: Positive = 5
    """How often each clip is seen."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps, whatever num_epochs says."""
    max_duration: Seconds = 30.0
    """Seconds of a clip per sample; longer clips give a random window. Never more than the base was
    trained on: 30 s for Meta's, 10 s for tiny-beats."""
    fp16: bool = False
    """Half precision where the device is fast at it; says what it does instead elsewhere."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the frozen base; the adapter is always trained in fp32."""
    quantise: Literal["none", "8bit", "4bit"] = "none"
    """Hold the frozen base in 8 or 4 bits, for models that are too big otherwise; needs
    pip install 'musicgen-lora[quantise]'."""
    condition_dropout: Share = 0.1
    """Share of samples trained without their caption, which guidance needs."""
    melody_dropout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Share of samples trained without their tune, for a melody model: it then plays with and
    without one. audiocraft trained its melody models so; 1 trains on text alone."""
    validation_fraction: Share = 0.1
    """Share of the sources held out, at least one; 0 holds out none."""
    max_validation_windows: Positive = 200
    """Validation reads at most this many windows, spread over clips and places in them."""
    validate_every: Positive | None = None
    """Steps between validations (default: once an epoch)."""
    save_every: Positive | None = None
    """Steps between checkpoints (default: once an epoch)."""
    keep_checkpoints: Few = 2
    """How many of the newest checkpoints stay, besides the best one."""
    early_stopping_patience: Positive | None = None
    """Stop after so many validations in a row without a new best (default: never)."""
    previews: Literal["auto", "off"] = "auto"
    """auto plays preview_prompts into output_dir/previews, or two of the dataset's captions where
    there are none, for which training says what it takes; off plays nothing."""
    preview_prompts: list[str] = dataclasses.field(default_factory=list)
    """Prompts played by the base and as training goes."""
    preview_every: Positive | None = None
    """Steps between previews (default: once an epoch; of captions, only at the end)."""
    preview_duration: Annotated[float, Field(gt=0.0, le=30.0)] | None = None
    """Seconds of each preview (default: 10; of captions on a CPU, 4)."""
    report_to: list[Literal["tensorboard", "wandb"]] = dataclasses.field(default_factory=list)
    """Further places for the figures of metrics.jsonl; both are extras. wandb stays offline unless
    WANDB_MODE=online."""
    resume: Literal["auto", "never"] = "auto"
    """auto goes on with an unfinished run of the same settings in output_dir."""
    allow_random_base: bool = False
    """Train although the base predicts the data no better than chance (for tests)."""
    seed: Seed = 0
    """Of order, windows, dropout and the adapter's first weights."""


@dataclass(config=STRICT)
class GenerateSettings:
    """Generate audio with a base model, with or without an adapter."""

    base_model_path: str = EMBEDDED_NAME
    """Base model: a folder in Hugging Face's format, a hub id, or the embedded tiny-beats."""
    lora_model_path: Path | None = None
    """Adapter folder, such as output_dir/best_model; none plays the base."""
    prompts: list[str] = dataclasses.field(default_factory=list)
    """What to play, a prompt a clip."""
    output_dir: Path = Path("finetune/output/generated")
    """Where the WAV files and their JSON go."""
    melody: Path | None = None
    """Audio file whose tune all clips follow; for melody models such as
    facebook/musicgen-melody."""
    duration: Annotated[float, Field(gt=0.0, le=30.0)] = 10.0
    """Seconds of each clip; past what the base was trained on it goes on in windows."""
    guidance_scale: Guidance = 3.0
    """How strongly the prompt is followed; 1 switches guidance off."""
    top_k: TopK = 250
    """Draw from the k likeliest tokens; 0 takes all, 1 is greedy."""
    temperature: Temperature = 1.0
    """Above 1 is wilder, below is safer."""
    seed: Seed = 0
    """Of the first clip; the next has seed + 1, and so on."""
    batch_size: Few = 4
    """Prompts generated together."""


@dataclass(config=STRICT)
class EvaluateSettings:
    """Measure what an adapter changed, on held-out clips and on generated audio."""

    base_model_path: str = EMBEDDED_NAME
    """Base model that the adapter belongs to."""
    lora_model_path: Path = Path("finetune/output/best_model")
    """Adapter folder."""
    output_dir: Path = Path("finetune/output/evaluation")
    """Where report.html, report.json, plots/ and audio/ go."""
    duration: Annotated[float, Field(gt=0.0, le=30.0)] = 10.0
    """Seconds of each generated clip."""
    compare: bool = False
    """Generate with the base as well, at the same prompts and seeds."""
    data_dir: Path | None = None
    """Dataset with the held-out clips (default: the one that the adapter recorded)."""
    metadata_file: str = "metadata.json"
    """Name of the metadata inside data_dir."""
    from_tokens: bool = False
    """Take the held-out clips as they were encoded for training, without a look at the audio."""
    other_data_dir: Path | None = None
    """Dataset of other music; the loss on it says what the adapter forgot (default: for
    tiny-beats, clips of its own styles)."""
    prompts: list[str] = dataclasses.field(default_factory=list)
    """What to play (default: captions of held-out clips, then 808 prompts)."""
    num_prompts: Few = 8
    """How many prompts, where none are given."""
    guidance_scale: Guidance = 3.0
    """How strongly the prompt is followed; 1 switches guidance off."""
    top_k: TopK = 250
    """Draw from the k likeliest tokens; 0 takes all, 1 is greedy."""
    temperature: Temperature = 1.0
    """Above 1 is wilder, below is safer."""
    seed: Seed = 0
    """Of the first clip; the next has seed + 1, and so on."""
    batch_size: Few = 4
    """Clips that go through the model together."""


Strengths = list[Annotated[float, Field(ge=0.0, le=2.0)]]


HubName = Annotated[str, Field(pattern=r"^([\w.-]{1,96}/[\w.-]{1,96})?$")]


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
class MergeSettings(HubSettings):
    """Fold adapters into a base: a full checkpoint in Hugging Face's format."""

    model_path: str = EMBEDDED_NAME
    """Base model that the adapters belong to: a folder, a hub id, or the embedded tiny-beats."""
    lora_model_path: list[Path] = dataclasses.field(default_factory=list)
    """Adapter folders, such as output_dir/best_model; one or several."""
    strength: Strengths = dataclasses.field(default_factory=list)
    """Of each adapter, 0 to 2: 1 is the adapter as it was trained, 0 the base (default: 1 each)."""
    output_dir: Path = Path("finetune/output/merged")
    """Where the checkpoint goes; new or empty."""


@dataclass(config=STRICT)
class ExportSettings(HubSettings):
    """Write a model for another program, or an adapter for other people."""

    format: Literal["audiocraft", "peft"] = "audiocraft"
    """audiocraft: Meta's own library, adapters merged into the base; peft: one adapter by itself,
    without what tells of your machine and files, with a card and samples."""
    model_path: str = EMBEDDED_NAME
    """Base model: a folder, a hub id, or the embedded tiny-beats."""
    lora_model_path: list[Path] = dataclasses.field(default_factory=list)
    """Adapter folders; for audiocraft none leaves the base as it is."""
    strength: Strengths = dataclasses.field(default_factory=list)
    """Of each adapter, 0 to 2: 1 is the adapter as it was trained, 0 the base (default: 1 each)."""
    output_dir: Path = Path("finetune/output/exported")
    """Where the files go; new or empty."""
    previews: Path | None = None
    """WAV files for the card of format peft: a folder that generate wrote, or one of the training's
    previews (default: the newest of those beside the adapter)."""


@dataclass(config=STRICT)
class ImportSettings:
    """Turn another program's model into a base in Hugging Face's format."""

    format: Literal["audiocraft"] = "audiocraft"
    """audiocraft: Meta's own library."""
    input_dir: Path = Path("finetune/output/exported")
    """Folder with state_dict.bin and compression_state_dict.bin."""
    model_path: str | None = None
    """A MusicGen in Hugging Face's format, for what the export only names: its text encoder, and in
    Meta's releases its codec, such as facebook/musicgen-small."""
    output_dir: Path = Path("finetune/output/imported")
    """Where the model goes; new or empty."""


SETTINGS: dict[str, type] = {
    "prepare": PrepareSettings,
    "tokenise": TokeniseSettings,
    "train": TrainSettings,
    "generate": GenerateSettings,
    "evaluate": EvaluateSettings,
    "merge": MergeSettings,
    "export": ExportSettings,
    "import": ImportSettings,
}
