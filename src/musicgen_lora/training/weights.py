"""What is trained: an adapter or the whole language model, behind one interface."""

from __future__ import annotations

import contextlib
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import MusicgenForConditionalGeneration

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.formats.tensors import read_tensors
from musicgen_lora.model.base.loading import load_processor, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.chroma import SETTINGS_FILE, extractor_settings
from musicgen_lora.model.cpu.lora_linear import round_before_adding
from musicgen_lora.model.lora.card import adapter_card
from musicgen_lora.model.lora.facts import FACTS_FILE, AdapterFacts
from musicgen_lora.model.lora.spec import LoraSpec
from musicgen_lora.model.lora.targets import target_pattern
from musicgen_lora.model.lora.trainable import TrainableLora
from musicgen_lora.model.melody import is_melody
from musicgen_lora.plural import count
from musicgen_lora.runtime import processes
from musicgen_lora.training import sharded

if TYPE_CHECKING:
    from musicgen_lora.config import TrainSettings
    from musicgen_lora.config.train import LoraSettings


Gathered = dict[str, torch.Tensor] | None
"""Whole weights by name, in the first process, if each process has only a shard; None if the model
itself holds them whole."""


class _Parts:
    """What both kinds share: whole tensors, of which this process may hold a shard."""

    parameters: Any
    sharded = False
    """Whether each process has only a shard, so that all of them must run the model, save and
    publish together."""

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the parameters' layout, gathered in the first process; called in all."""
        return sharded.whole(tensor)

    def part_like(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """This process's shard of such a tensor, split like `like`."""
        return sharded.part_like(tensor, like)

    def are_finite(self) -> bool:
        """Whether this process's parameters are finite."""
        return all(bool(torch.isfinite(sharded.local(p)).all()) for p in self.parameters)


class LoraWeights(TrainableLora, _Parts):
    """A fresh adapter on a base.

    Args:
        model: on its device; it carries the adapter from now on.
        base_name: what the adapter's config calls the base.

    Raises:
        UserError: see `lora_spec` and `TrainableLora`.
    """

    def __init__(self, model: BaseModel, settings: LoraSettings, base_name: str) -> None:
        super().__init__(model, lora_spec(model.hf, settings), base_name)
        # PEFT leaves it in training mode; a run resumed at its end is only measured.
        self.train_mode(False)

    def remarks(self, precision: str) -> list[str]:
        """What to tell the user of how it adapts its layers."""
        said = []
        if left_out := self.left_out:
            said.append(
                f"DoRA skips {count(len(left_out), 'layer')} with rows of zeros, which have no "
                f"direction: {', '.join(left_out)}."
            )
        if self.narrow:
            name, most = max(self.narrow.items(), key=lambda layer: layer[1])
            said.append(
                f"--lora_rank {self.rank} is more than {count(len(self.narrow), 'layer')} can use "
                f"(such as {name}, whose rank is {most} at most): it takes memory and adds "
                f"nothing there. Use {most} or less."
            )
        rounded = round_before_adding(self.peft) if precision != "fp32" else []
        if rounded:
            said.append(
                f"In {precision}, {len(rounded)} of the adapted layers (such as {rounded[0]}) "
                f"{'round' if len(rounded) != 1 else 'rounds'} the base's output before adding the "
                "adapter's, which loses its smallest changes; --precision fp32 keeps them."
            )
        return said

    def gather(self) -> Gathered:
        """See `WholeModel.gather`."""
        return None

    def save(
        self, folder: Path, gathered: Gathered = None, *, metadata: dict[str, Any] | None = None
    ) -> None:
        super().save(folder, metadata=metadata)

    def publish(self, folder: Path, facts: dict[str, Any]) -> None:
        """Replaces `folder` by it, with its facts and a model card. Called in all processes; the
        first one writes."""

        def fill(staging: Path) -> None:
            own = AdapterFacts.of_run(facts)
            self.save(staging, metadata=own.header())
            own.write(staging)
            card = adapter_card(own.content, folder.name)
            (staging / atomic.CARD_FILE).write_text(card, encoding="utf-8")

        if processes.rank() == 0:
            atomic.publish_folder(folder, fill)


class WholeModel(_Parts):
    """The language model itself, with the text encoder if that is trained too.

    Args:
        base: on its device. With `fsdp` its parameters become shards.
    """

    def __init__(self, base: BaseModel, settings: TrainSettings) -> None:
        with_text, model = settings.trainable == "full_with_text", base.hf
        model.decoder.requires_grad_(True)
        for name in ("enc_to_dec_proj", "audio_enc_to_dec_proj"):
            if hasattr(model, name):
                getattr(model, name).requires_grad_(True)
        if with_text:
            text_encoder: Any = model.text_encoder
            text_encoder.requires_grad_(True)
        if settings.frozen_modules:
            freeze(model, settings.frozen_modules)
        self.sharded = settings.fsdp
        if self.sharded:
            sharded.shard_model(model, with_text=with_text)
        self._model, self._base_path = model, settings.model_path
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def gather(self) -> Gathered:
        """The whole weights; called in all processes."""
        return sharded.whole_weights(self._model) if self.sharded else None

    def save(self, folder: Path, gathered: Gathered) -> None:
        """Writes them into a folder, in the format that inference loads."""
        self._model.save_pretrained(str(folder), state_dict=gathered)

    def load(self, folder: Path) -> None:
        """Reads them back."""
        own = self._model.state_dict()
        missing, unexpected = self._model.load_state_dict(
            {
                name: self.part_like(tensor, own[name]) if name in own else tensor
                for name, tensor in read_tensors(folder / "model.safetensors").items()
            },
            strict=False,
        )
        trained = {name for name, p in self._model.named_parameters() if p.requires_grad}
        assert not unexpected
        assert not trained & set(missing)

    def publish(self, folder: Path, facts: dict[str, Any]) -> None:
        """See `LoraWeights.publish`."""
        gathered = self.gather()

        def fill(staging: Path) -> None:
            self.save(staging, gathered)
            if is_melody(self._model):
                # Its processor cannot be made without torchaudio.
                load_tokenizer(self._base_path).save_pretrained(str(staging))
                settings = extractor_settings(self._base_path)
                atomic.write_json(staging / SETTINGS_FILE, settings)
            else:
                load_processor(self._base_path).save_pretrained(str(staging))
            atomic.write_json(staging / FACTS_FILE, facts)

        if processes.rank() == 0:
            atomic.publish_folder(folder, fill)

    def train_mode(self, on: bool) -> None:
        """Nothing: its dropout stays off."""

    def base_alone(self) -> AbstractContextManager[None]:
        """In full training there is none."""
        return contextlib.nullcontext()


Weights = LoraWeights | WholeModel


def make_weights(model: BaseModel, settings: TrainSettings, base_name: str) -> Weights:
    """Prepares the weights that `settings.trainable` names, of a model on its device."""
    if settings.trainable == "lora":
        return LoraWeights(model, settings, base_name)
    return WholeModel(model, settings)


def lora_spec(model: MusicgenForConditionalGeneration, settings: LoraSettings) -> LoraSpec:
    """The adapter that `settings` asks for, checked; a UserError says what doesn't fit."""
    spec = LoraSpec(
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        pattern=target_pattern(
            model,
            targets=settings.lora_targets,
            layers=settings.lora_layers,
            modules=settings.lora_modules,
        ),
        kind=settings.adapter,
        init=settings.lora_init,
    )
    spec.check(model)
    return spec


def freeze(model: MusicgenForConditionalGeneration, pattern: str) -> None:
    """Freezes the parameters whose names match `pattern`.

    Raises:
        UserError: it matches none or all of the trained ones.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    chosen = [p for name, p in trained.items() if re.search(pattern, name)]
    if not chosen:
        raise UserError(
            f"frozen_modules: {pattern!r} matches none of the trained parameters, such as "
            f"{next(iter(trained))}."
        )
    if len(chosen) == len(trained):
        raise UserError(
            f"frozen_modules: {pattern!r} matches all parameters, so nothing would be trained."
        )
    for parameter in chosen:
        parameter.requires_grad_(False)
