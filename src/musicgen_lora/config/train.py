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
from musicgen_lora.config.kinds import STRICT, Few, Positive, Seconds, Seed, Share
from musicgen_lora.errors import UserError
from musicgen_lora.urls import url_of

LEAST_PRODIGY_RATE = 0.1
"""Prodigy multiplies the rate that it finds by the one given; AdamW's would stop it."""
FSDP_PRECISION = "--fsdp trains in bf16 or fp32: give --precision bf16 or fp32."
"""What is said where it would be fp16; with --fp16, that is for the device to tell."""
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

    model_path: str = EMBEDDED_NAME
    """Base model whose codec is used: a folder, a hub id, or the embedded tiny-beats."""
    data_dir: Path = Path("finetune/data")
    """Folder of the dataset, or its URL, such as s3://bucket/beats, where the shards then go."""
    metadata_file: str = "metadata.json"
    """Name of the metadata inside data_dir."""
    pack: Path | None = None
    """File for the tokens, captions and split of all clips as well, for training on a machine that
    has neither the audio nor libraries that read it: python -m musicgen_lora.training.packed."""


@dataclass(config=STRICT)
class EncodersSettings:
    """How many encode."""

    num_workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that encode, each with the codec; 0 encodes in threads of the command's own."""


@dataclass(config=STRICT)
class TokeniseSettings(ClusterSettings, EncodersSettings, EncodingSettings):
    """Encode a dataset's audio with the codec; training does it too for what is missing."""

    def __post_init__(self) -> None:
        if self.pack is not None and url_of(self.data_dir):
            raise UserError(
                "--pack is for a dataset in a folder: leave it out, or copy the dataset."
            )
        if self.ray is not None and self.num_workers:
            raise UserError(
                "--num_workers is for processes of this machine, --ray for those of a cluster: "
                "give one of the two."
            )


@dataclass(config=STRICT)
class ModelSettings:
    """The base, how it is held, and what of it is trained."""

    model_path: str = EMBEDDED_NAME
    """Base model: a folder in Hugging Face's format, a hub id, or the embedded tiny-beats."""
    trainable: Literal["lora", "full", "full_with_text"] = "lora"
    """lora trains an adapter; full every weight of the language model; full_with_text those of
    the text encoder too (for pre-training a model of your own)."""
    frozen_modules: str = ""
    """Regular expression of parameter names, anywhere in them, that full training leaves as they
    are, like layers\\.0\\.encoder_attn."""
    fsdp: bool = False
    """Several processes share the weights, gradients and optimizer state of full training, so that
    larger models fit; under torchrun."""
    fp16: bool = False
    """Half precision where the device is fast at it; says what it does instead elsewhere."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the frozen base; the adapter is always trained in fp32."""
    quantise: Literal["none", "8bit", "4bit"] = "none"
    """Hold the frozen base in 8 or 4 bits, for models that are too big otherwise; needs
    pip install 'musicgen-lora[quantise]'."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass: much less memory, about a third slower."""
    allow_random_base: bool = False
    """Train although the base predicts the data no better than chance (for tests)."""


@dataclass(config=STRICT)
class DataSettings:
    """What is trained on."""

    data_dir: Path = Path("finetune/data")
    """Folder of the dataset, or the URL of one that is tokenised, whose tokens are fetched."""
    metadata_file: str = "metadata.json"
    """Name of the metadata inside data_dir."""
    from_tokens: bool = False
    """Train on what the tokenise command made, without a look at the audio, which may be absent: a
    large dataset starts at once, on a network drive too. Audio changed since then goes unseen."""
    max_duration: Seconds = 30.0
    """Seconds of a clip per sample; longer clips give a random window. Never more than the base was
    trained on: 30 s for Meta's and tiny-beats."""
    group_by_length: bool = False
    """Clips of like length share a step: less padding where lengths differ much."""
    condition_dropout: Share = 0.1
    """Share of samples trained without their caption, which guidance needs."""
    melody_dropout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Share of samples trained without their melody, for a melody model: it then plays with and
    without one. audiocraft trained its melody models so; 1 trains on text alone."""


@dataclass(config=STRICT)
class LoraSettings:
    """The adapter."""

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


@dataclass(config=STRICT)
class OptimizerSettings:
    """The steps."""

    optimizer: Literal["adamw", "adamw8bit", "prodigy", "muon"] = "adamw"
    """adamw8bit holds AdamW's state in 8 bits, prodigy finds its own rate (both are extras), muon
    steps the layers' matrices, or those of an adapter on them, by Muon and the rest by AdamW."""
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
    num_epochs: Positive = 5
    """How often each clip is seen."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps, whatever num_epochs says."""
    seed: Seed = 0
    """Seed of order, windows, dropout and the adapter's first weights."""


@dataclass(config=STRICT)
class ValidationSettings:
    """The clips that are held out, and how often they are measured."""

    validation_fraction: Share = 0.1
    """Share of the sources held out, at least one; 0 holds out none."""
    max_validation_windows: Positive = 200
    """Validation reads at most this many windows, spread over clips and places in them."""
    validate_every: Positive | None = None
    """Steps between validations (default: once an epoch)."""
    early_stopping_patience: Positive | None = None
    """Stop after so many validations in a row without a new best (default: never)."""


@dataclass(config=STRICT)
class PreviewSettings:
    """What is played as training goes."""

    previews: Literal["auto", "off"] = "auto"
    """auto plays preview_prompts into output_dir/previews, or two of the dataset's captions where
    there are none, for which training says what it takes; off plays nothing."""
    preview_prompts: list[str] = dataclasses.field(default_factory=list)
    """Prompts played by the base and as training goes."""
    preview_every: Positive | None = None
    """Steps between previews (default: once an epoch; of captions, only at the end)."""
    preview_duration: Annotated[float, Field(gt=0.0, le=30.0)] | None = None
    """Seconds of each preview (default: 10; of captions on a CPU, 4)."""


@dataclass(config=STRICT)
class SavingSettings:
    """What stays of the run."""

    output_dir: Path = Path("finetune/output")
    """Where checkpoints/, best_model/, metrics.jsonl and run.json go."""
    save_every: Positive | None = None
    """Steps between checkpoints (default: once an epoch)."""
    keep_checkpoints: Few = 2
    """How many of the newest checkpoints stay, besides the best one."""
    resume: Literal["auto", "never"] = "auto"
    """auto goes on with an unfinished run of the same settings in output_dir."""
    report_to: list[Literal["tensorboard", "wandb"]] = dataclasses.field(default_factory=list)
    """Further places for the figures of metrics.jsonl; both are extras. wandb stays offline unless
    WANDB_MODE=online."""


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
    """What needs an adapter, where there is none, and how it may start."""
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
            f"lora_init {settings.lora_init} reads the base's own weights; quantise "
            f"{settings.quantise} needs default or gaussian."
        )


def _check_layers(settings: TrainSettings) -> None:
    """Where the adapter is, and what full training leaves alone."""
    _check_expression("lora_modules", settings.lora_modules)
    _check_expression("frozen_modules", settings.frozen_modules)
    if settings.lora_modules:
        if settings.lora_layers:
            raise UserError("lora_layers chooses among lora_targets; lora_modules replaces both.")
    elif not settings.lora_targets:
        raise UserError("lora_targets is empty; name at least one part of the model.")
    elif settings.lora_layers and not {"attention", "feed_forward"} & set(settings.lora_targets):
        raise UserError("lora_layers is given, but neither attention nor feed_forward is a target.")


def _check_expression(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"{name}: {pattern!r} is no regular expression: {error}.") from error


def _check_full(settings: TrainSettings) -> None:
    if settings.trainable != "lora":
        return
    if settings.frozen_modules:
        raise UserError(
            "frozen_modules is for --trainable full; --lora_modules says where an adapter is."
        )
    if settings.fsdp:
        raise UserError(
            "--fsdp is for --trainable full: an adapter is small, and several processes share its "
            "clips without it."
        )


def _check_fsdp(settings: TrainSettings) -> None:
    if not settings.fsdp:
        return
    if settings.optimizer != "adamw":
        raise UserError(f"--fsdp goes with --optimizer adamw, not {settings.optimizer}.")
    if settings.preview_prompts:
        raise UserError("--fsdp makes no previews: leave --preview_prompts out.")
    if settings.precision == "fp16":
        raise UserError(FSDP_PRECISION)


def _check_precision(settings: TrainSettings) -> None:
    if settings.fp16 and settings.precision != "auto":
        raise UserError(
            "--fp16 leaves the kind of half precision to the device, --precision "
            f"{settings.precision} names one: give one of the two (--no_fp16 takes back what a "
            "file says)."
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
    # Which modules an expression names, the model tells.
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
