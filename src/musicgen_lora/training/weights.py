"""What is trained: an adapter, or the whole language model; one interface for both."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from torch import nn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.formats.tensors import read_tensors
from musicgen_lora.model.chroma import write_extractor_settings
from musicgen_lora.model.lora import initial as start
from musicgen_lora.model.lora.adapter import (
    FACTS_FILE,
    FACTS_VERSION,
    WEIGHTS_FILE,
    adapter_off,
    add_lora,
    check_initialisation,
    save_adapter,
)
from musicgen_lora.model.lora.card import adapter_card, header_facts
from musicgen_lora.model.lora.targets import check_expression, target_pattern
from musicgen_lora.model.melody import is_melody
from musicgen_lora.model.musicgen import load_processor, load_tokenizer
from musicgen_lora.runtime import processes
from musicgen_lora.training.sharding import part_like, shard_model, whole_weights

if TYPE_CHECKING:
    from musicgen_lora.config import TrainSettings


@dataclass(frozen=True)
class Trainee:
    """The trained weights.

    Args:
        parameters: what the optimizer steps.
        adapted: the PEFT model; None in full training.
        gather: puts them together, in all processes where each has a part, and returns what
            writes them into a folder in the format that inference loads.
        load_weights: reads them back.
        publish: `(folder, run)` puts them in place of `folder` with card and facts. Called in all
            processes; the first one writes.
        train_mode: switches the adapter's dropout on and off. The decoder's own dropout stays
            off, as in audiocraft.
        base_alone: a context in which the plain base speaks; in full training there is none.
    """

    parameters: list[nn.Parameter]
    adapted: PeftModel | None
    gather: Callable[[], Callable[[Path], None]]
    load_weights: Callable[[Path], None]
    publish: Callable[[Path, dict[str, Any]], None]
    train_mode: Callable[[bool], None]
    base_alone: Callable[[], AbstractContextManager[None]]


def make_trainee(
    model: MusicgenForConditionalGeneration, settings: TrainSettings, run: dict[str, Any]
) -> Trainee:
    """Chooses and prepares the weights that `settings.trainable` names."""
    if settings.trainable != "lora":
        return _whole_model(model, settings)
    adapted = add_lora(
        model,
        base_name=run["base"]["path"],
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        pattern=lora_pattern(model, settings),
        kind=settings.adapter,
        init=settings.lora_init,
    )
    dropouts = [m for name, m in adapted.named_modules() if name.endswith("lora_dropout.default")]
    started = start.adapter_tensors(adapted) if settings.lora_init in start.FROM_BASE else None

    def save(folder: Path) -> None:
        save_adapter(adapted, folder, started=started)

    def load(folder: Path) -> None:
        tensors = read_tensors(folder / WEIGHTS_FILE)
        if started is not None:
            tensors, then = start.split_plain_lora(tensors)
            start.move_start(adapted, started, then)
            started.update(then)
        start.put_tensors(adapted, tensors)

    def publish(folder: Path, run: dict[str, Any]) -> None:
        def fill(staging: Path) -> None:
            save_adapter(adapted, staging, started=started, metadata=header_facts(run))
            facts = {"format_version": FACTS_VERSION, **_public(run)}
            atomic.write_json(staging / FACTS_FILE, facts)
            card = adapter_card(facts, folder.name)
            (staging / "README.md").write_text(card, encoding="utf-8")

        if processes.rank() == 0:
            atomic.publish_folder(folder, fill)

    def train_mode(on: bool) -> None:
        for dropout in dropouts:
            dropout.train(on)

    # PEFT makes it ready for training; a run resumed at its end is only measured.
    train_mode(False)
    parameters = [p for p in adapted.parameters() if p.requires_grad]
    return Trainee(
        parameters,
        adapted,
        lambda: save,
        load,
        publish,
        train_mode,
        lambda: adapter_off(adapted, started),
    )


def lora_pattern(model: MusicgenForConditionalGeneration, settings: TrainSettings) -> str:
    """The modules that `settings` names, checked: a UserError says what does not fit."""
    pattern = target_pattern(
        model,
        targets=settings.lora_targets,
        layers=settings.lora_layers,
        modules=settings.lora_modules,
    )
    check_initialisation(model, pattern, rank=settings.lora_rank, init=settings.lora_init)
    return pattern


def check_frozen(pattern: str, trainable: str) -> None:
    """Raises a UserError where `pattern` is no regular expression or there is nothing to freeze: an
    adapter's base is frozen."""
    check_expression("frozen_modules", pattern)
    if pattern and trainable == "lora":
        raise UserError(
            "frozen_modules is for --trainable full; --lora_modules says where an adapter is."
        )


def freeze(model: MusicgenForConditionalGeneration, pattern: str) -> None:
    """Takes the parameters whose names hold `pattern` out of what is trained.

    Raises:
        UserError: it matches nothing, or all that is trained.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    chosen = [p for name, p in trained.items() if re.search(pattern, name)]
    if not chosen:
        raise UserError(
            f"frozen_modules: {pattern!r} matches none of the parameters that are trained, such as "
            f"{next(iter(trained))}."
        )
    if len(chosen) == len(trained):
        raise UserError(f"frozen_modules: {pattern!r} matches all parameters: nothing would train.")
    for parameter in chosen:
        parameter.requires_grad_(False)


def _whole_model(model: MusicgenForConditionalGeneration, settings: TrainSettings) -> Trainee:
    model.decoder.requires_grad_(True)
    for name in ("enc_to_dec_proj", "audio_enc_to_dec_proj"):
        if hasattr(model, name):
            getattr(model, name).requires_grad_(True)
    if settings.trainable == "full_with_text":
        text_encoder: Any = model.text_encoder
        text_encoder.requires_grad_(True)
    if settings.frozen_modules:
        freeze(model, settings.frozen_modules)

    if settings.fsdp:
        shard_model(model, with_text=settings.trainable == "full_with_text")

    def gather() -> Callable[[Path], None]:
        weights = whole_weights(model) if settings.fsdp else None
        return lambda folder: model.save_pretrained(str(folder), state_dict=weights)

    def load(folder: Path) -> None:
        own = model.state_dict()
        missing, unexpected = model.load_state_dict(
            {
                name: part_like(tensor, own[name]) if name in own else tensor
                for name, tensor in read_tensors(folder / "model.safetensors").items()
            },
            strict=False,
        )
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert not unexpected
        assert not trained & set(missing)

    def publish(folder: Path, run: dict[str, Any]) -> None:
        save = gather()

        def fill(staging: Path) -> None:
            save(staging)
            if is_melody(model):
                # Its processor cannot be made without torchaudio.
                load_tokenizer(settings.model_path).save_pretrained(str(staging))
                write_extractor_settings(settings.model_path, staging)
            else:
                load_processor(settings.model_path).save_pretrained(str(staging))
            atomic.write_json(staging / FACTS_FILE, _public(run))

        if processes.rank() == 0:
            atomic.publish_folder(folder, fill)

    parameters = [p for p in model.parameters() if p.requires_grad]
    return Trainee(parameters, None, gather, load, publish, lambda on: None, contextlib.nullcontext)


def _public(run: dict[str, Any]) -> dict[str, Any]:
    """The part of a run that travels with its weights."""
    names = ("base", "data", "settings", "versions", "precision", "base_loss", "best", "identity")
    return {name: run[name] for name in names if name in run}
