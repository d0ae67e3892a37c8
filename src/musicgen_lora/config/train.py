"""Settings of `tokenise` and `train`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.config.cluster import ClusterSettings
from musicgen_lora.config.kinds import (
    STRICT,
    Base,
    Few,
    Place,
    Positive,
    Seconds,
    Seed,
    Share,
    settings_of_command,
)
from musicgen_lora.errors import UserError
from musicgen_lora.urls import url_of

LEAST_PRODIGY_RATE = 0.1
"""Prodigy multiplies the rate that it finds by the one given; AdamW's would stall it."""
FSDP_PRECISION = "--fsdp trains in bf16 or fp32: pass --precision bf16 or fp32."
"""The error where it would be fp16; with --fp16 that depends on the device."""
UNUSED_TEXT_RATE = (
    "--text_encoder_learning_rate is given, but the text encoder is not trained: add it to "
    "--lora_targets, or leave the rate out."
)
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
class EncodingSettings:
    """What is encoded, and by which codec."""

    model_path: Base = EMBEDDED_NAME
    """Base model whose codec to use: a folder, a hub id, or the embedded tiny-beats."""
    data_dir: Place = Path("finetune/data")
    """Folder of the dataset, or its URL, such as s3://bucket/beats, where the shards will go."""
    metadata_file: str = "metadata.json"
    """Name of the metadata file in data_dir."""
    pack: Place | None = None
    """Also write the tokens, captions and split of all clips to this file, to train on a machine
    that has neither the audio nor libraries to read it: python -m musicgen_lora.training.packed."""


@dataclass(config=STRICT)
class EncodersSettings:
    """How many processes encode."""

    num_workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Worker processes that encode, each with a codec; 0 encodes in threads of the main process."""


@settings_of_command
@dataclass(config=STRICT)
class TokeniseSettings(ClusterSettings, EncodersSettings, EncodingSettings):
    """Encode a dataset's audio with the codec; training also encodes what is missing."""

    def __post_init__(self) -> None:
        if self.pack is not None and url_of(self.data_dir):
            raise UserError(
                "--pack needs a dataset in a local folder: leave it out, or copy the dataset."
            )
        if self.ray is not None and self.num_workers:
            raise UserError(
                "--num_workers is for processes on this machine, --ray for those of a cluster: "
                "pass only one."
            )


@dataclass(config=STRICT)
class ModelSettings:
    """The base, how it is loaded, and which of its weights are trained."""

    model_path: Base = EMBEDDED_NAME
    """Base model: a folder in Hugging Face format, a hub id, or the embedded tiny-beats."""
    trainable: Literal["lora", "full", "full_with_text"] = "lora"
    """lora trains an adapter; full every weight of the language model; full_with_text the text
    encoder's too (for pre-training a model of your own)."""
    frozen_modules: str = ""
    """Regular expression: full training leaves parameters unchanged whose names contain a match,
    like layers\\.0\\.encoder_attn."""
    fsdp: bool = False
    """Shard the weights, gradients and optimizer state of full training over several processes
    (torchrun), so that larger models fit."""
    fp16: bool = False
    """Half precision if the device is fast at it; otherwise training says what it uses instead."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the frozen base; the adapter is always trained in fp32."""
    quantise: Literal["none", "8bit", "4bit"] = "none"
    """Hold the frozen base in 8 or 4 bits, for models that don't fit otherwise; needs pip install
    'musicgen-lora[quantise]'."""
    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass: much less memory, about a third slower."""
    allow_random_base: bool = False
    """Train even if the base predicts the data no better than chance (for tests)."""


@dataclass(config=STRICT)
class DataSettings:
    """What to train on."""

    data_dir: Place = Path("finetune/data")
    """Folder of the dataset, or the URL of a tokenised one, whose tokens are downloaded."""
    metadata_file: str = "metadata.json"
    """Name of the metadata file in data_dir."""
    from_tokens: bool = False
    """Train on the tokenise command's output without reading the audio, which may be absent: a
    large dataset starts at once, even from a network drive. Later changes of audio go unseen."""
    max_duration: Seconds = 30.0
    """Longest training sample in seconds; of longer clips a random window is used. Never more than
    the base was trained on: 30 s for Meta's models and tiny-beats."""
    group_by_length: bool = False
    """Put clips of similar length into the same step: less padding if lengths vary a lot."""
    condition_dropout: Share = 0.1
    """Share of samples trained without their caption; guidance needs these."""
    melody_dropout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Share of samples trained without their melody, so that a melody model works with and without
    one, as audiocraft trained its own; 1 trains on text alone."""


@dataclass(config=STRICT)
class LoraSettings:
    """The adapter."""

    adapter: Literal["lora", "rslora", "dora"] = "lora"
    """lora; rslora scales by lora_alpha / sqrt(lora_rank), for high ranks; dora learns the weights'
    magnitudes too, with slower steps."""
    lora_rank: Annotated[int, Field(ge=1, le=4096)] = 12
    """Rank of the adapter."""
    lora_alpha: Annotated[int, Field(ge=1, le=10**6)] = 24
    """The adapter's update is scaled by lora_alpha / lora_rank."""
    lora_dropout: Share = 0.0
    """Dropout on the adapter's input."""
    lora_init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"
    """How the adapter is initialised; pissa and olora take its first weights from the base's, and
    are saved with twice the rank."""
    lora_targets: list[LoraTarget] = dataclasses.field(
        default_factory=lambda: ["attention", "feed_forward"]
    )
    """Parts of the model that get the adapter."""
    lora_layers: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    """Decoder layers whose attention and feed_forward get it, like 0-11 or 0,4,8-11; all if
    empty."""
    lora_modules: str = ""
    """Regular expression that matches full module names, instead of lora_targets."""


@dataclass(config=STRICT)
class OptimizerSettings:
    """How the weights are updated."""

    optimizer: Literal["adamw", "adamw8bit", "prodigy", "muon"] = "adamw"
    """adamw8bit holds AdamW's state in 8 bits, prodigy finds its own rate (both are extras), muon
    uses Muon for the layers' matrices, or those of an adapter on them, and AdamW for the rest."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak learning rate (default: for an adapter what the base recommends, 2e-3 for tiny-beats,
    else 3e-4; 1 for prodigy, which multiplies its own by it)."""
    text_encoder_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak rate of the text encoder, if it is trained: a rate that suits the decoder may make it
    unlearn the words (default: learning_rate)."""
    lr_schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """How the rate decays after the warm-up; wsd stays constant, then decays over the last 30 %."""
    warmup_share: Share = 0.05
    """Share of all steps over which the rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.01
    """Decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0.0, le=1e9)] = 1.0
    """Gradients are clipped to this norm."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay (such as 0.99) of a running average of the weights to validate and save; None: off."""
    codebook_weights: list[Annotated[float, Field(ge=0.0, le=1000.0)]] | None = None
    """Weight of each codebook's loss, such as 2 1 1 1 (default: all equal)."""
    batch_size: Few = 2
    """Clips that the model processes together; if memory runs out it is halved, with twice the
    batches per step."""
    gradient_accumulation_steps: Few = 4
    """Batches per optimizer step."""
    num_epochs: Positive = 5
    """How many times each clip is seen."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps, if num_epochs doesn't end the run before."""
    seed: Seed = 0
    """Seed of order, windows, dropout and the adapter's initial weights."""


@dataclass(config=STRICT)
class ValidationSettings:
    """The clips that are held out, and how often they are measured."""

    validation_fraction: Share = 0.1
    """Share of the sources held out, at least one; 0 holds out none."""
    max_validation_windows: Positive = 200
    """Validation reads at most this many windows, spread over the clips and positions in them."""
    validate_every: Positive | None = None
    """Steps between validations (default: once an epoch)."""
    early_stopping_patience: Positive | None = None
    """Stop after this many validations in a row without a new best (default: never)."""


@dataclass(config=STRICT)
class PreviewSettings:
    """What is generated during training."""

    previews: Literal["auto", "off"] = "auto"
    """auto generates previews in output_dir/previews from preview_prompts, or from two of the
    dataset's captions if there are none; off makes none."""
    preview_prompts: list[str] = dataclasses.field(default_factory=list)
    """Prompts of previews, by the base first and then during training."""
    preview_every: Positive | None = None
    """Steps between previews (default: once an epoch; for captions, only at the end)."""
    preview_duration: Annotated[float, Field(gt=0.0, le=30.0)] | None = None
    """Seconds of each preview (default: 10; for captions on a CPU, 4)."""


@dataclass(config=STRICT)
class SavingSettings:
    """What is kept of the run."""

    output_dir: Place = Path("finetune/output")
    """Where checkpoints/, best_model/, metrics.jsonl and run.json go."""
    save_every: Positive | None = None
    """Steps between checkpoints (default: once an epoch)."""
    keep_checkpoints: Few = 2
    """How many of the newest checkpoints to keep, besides the best one."""
    resume: Literal["auto", "never"] = "auto"
    """auto resumes an unfinished run with the same settings in output_dir."""
    report_to: list[Literal["tensorboard", "wandb"]] = dataclasses.field(default_factory=list)
    """Trackers that also get the figures of metrics.jsonl; both are extras. wandb stays offline
    unless WANDB_MODE=online."""


@settings_of_command
@dataclass(config=STRICT)
class TrainSettings(
    SavingSettings,
    PreviewSettings,
    ValidationSettings,
    OptimizerSettings,
    LoraSettings,
    DataSettings,
    ModelSettings,
):
    """Train a LoRA adapter on a dataset."""

    def __post_init__(self) -> None:
        _check_adapter(self)
        _check_layers(self)
        _check_full(self)
        _check_fsdp(self)
        _check_precision(self)
        _check_rates(self)
        _check_previews(self)


def _check_adapter(settings: TrainSettings) -> None:
    """Check what needs an adapter, and how it may be initialised."""
    if settings.trainable != "lora":
        given = [
            f"--{field.name}"
            for field in dataclasses.fields(LoraSettings)
            if getattr(settings, field.name) != getattr(LoraSettings(), field.name)
        ]
        if given:
            raise UserError(
                f"--trainable {settings.trainable} trains no adapter: leave {' and '.join(given)} "
                "out, or train one with --trainable lora."
            )
        if settings.quantise != "none":
            raise UserError(
                f"quantise {settings.quantise} freezes the base: it needs trainable lora."
            )
    if settings.lora_init == "orthogonal" and settings.lora_rank % 2:
        raise UserError(f"lora_init orthogonal needs an even lora_rank, not {settings.lora_rank}.")
    if settings.quantise != "none" and settings.lora_init not in ("default", "gaussian"):
        raise UserError(
            f"lora_init {settings.lora_init} reads the base's full-precision weights; quantise "
            f"{settings.quantise} needs default or gaussian."
        )


def _check_layers(settings: TrainSettings) -> None:
    """Check where the adapter goes, and what full training leaves unchanged."""
    _check_expression("lora_modules", settings.lora_modules)
    _check_expression("frozen_modules", settings.frozen_modules)
    if settings.lora_modules:
        if settings.lora_layers:
            raise UserError("lora_modules replaces lora_targets and lora_layers: drop lora_layers.")
    elif not settings.lora_targets:
        raise UserError("lora_targets is empty; name at least one part of the model.")
    elif settings.lora_layers and not {"attention", "feed_forward"} & set(settings.lora_targets):
        raise UserError("lora_layers needs attention or feed_forward in lora_targets: add one.")


def _check_expression(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"{name}: {pattern!r} is not a regular expression: {error}.") from error


def _check_full(settings: TrainSettings) -> None:
    if settings.trainable != "lora":
        return
    if settings.frozen_modules:
        raise UserError(
            "frozen_modules is for --trainable full; --lora_modules says where an adapter goes."
        )
    if settings.fsdp:
        raise UserError(
            "--fsdp is for --trainable full: an adapter is small, and several processes share its "
            "clips without --fsdp."
        )


def _check_fsdp(settings: TrainSettings) -> None:
    if not settings.fsdp:
        return
    if settings.optimizer != "adamw":
        raise UserError(f"--fsdp needs --optimizer adamw, not {settings.optimizer}.")
    if settings.preview_prompts:
        raise UserError("--fsdp makes no previews: leave --preview_prompts out.")
    if settings.precision == "fp16":
        raise UserError(FSDP_PRECISION)


def _check_precision(settings: TrainSettings) -> None:
    if settings.fp16 and settings.precision != "auto":
        raise UserError(
            "--fp16 leaves the kind of half precision to the device, --precision "
            f"{settings.precision} names one: pass only one (--no_fp16 overrides a file)."
        )


def _check_rates(settings: TrainSettings) -> None:
    rate, text_rate = settings.learning_rate, settings.text_encoder_learning_rate
    if settings.optimizer == "prodigy":
        if rate is not None and rate < LEAST_PRODIGY_RATE:
            raise UserError(
                "--optimizer prodigy finds the rate itself and multiplies it by --learning_rate: "
                f"give 1, not {rate:g}, or leave it out."
            )
        if text_rate is not None:
            raise UserError(
                "--optimizer prodigy finds one rate for all; leave --text_encoder_learning_rate "
                "out."
            )
    # Only the model can tell which modules an expression matches.
    names_text_encoder = settings.lora_modules or "text_encoder" in settings.lora_targets
    trains_text_encoder = settings.trainable == "full_with_text" or (
        settings.trainable == "lora" and names_text_encoder
    )
    if text_rate is not None and not trains_text_encoder:
        raise UserError(UNUSED_TEXT_RATE)


def _check_previews(settings: TrainSettings) -> None:
    named = [
        f"--{name}"
        for name in ("preview_prompts", "preview_every", "preview_duration")
        if getattr(settings, name)
    ]
    if settings.previews == "off" and named:
        raise UserError(f"--previews off makes none: leave {' and '.join(named)} out.")
