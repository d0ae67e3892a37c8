"""Checks of training settings against the machine and the base, made before any work is done.
`config.TrainSettings` checks the settings against each other."""

from __future__ import annotations

from musicgen_lora.config import TrainSettings
from musicgen_lora.config.train import UNUSED_TEXT_RATE
from musicgen_lora.errors import UserError
from musicgen_lora.given import check_extras
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.quantise import check_quantise
from musicgen_lora.model.lora.targets import adapts_text_encoder
from musicgen_lora.plural import count
from musicgen_lora.runtime import processes
from musicgen_lora.training.sharded import check_sharding
from musicgen_lora.training.weights import lora_spec


def check_settings(settings: TrainSettings) -> None:
    """Raises a UserError if a library is missing, or a step has fewer clips than processes."""
    check_extras(settings)
    per_step = settings.batch_size * settings.gradient_accumulation_steps
    if per_step < processes.world_size():
        raise UserError(
            f"A step has {count(per_step, 'clip')} (batch_size x gradient_accumulation_steps), too "
            f"few for {processes.world_size()} processes; raise --gradient_accumulation_steps."
        )


def check_fit(settings: TrainSettings, model: BaseModel) -> None:
    """Raises a UserError if settings don't fit the base."""
    _check_codebooks(settings, model.shape.n_codebooks)
    check_sharding(settings, model.hf)
    check_quantise(settings.quantise, adapter=settings.adapter, device=processes.device())
    # Only the model can tell whether an expression matches the text encoder.
    if settings.text_encoder_learning_rate is not None and not trains_text(settings, model):
        raise UserError(UNUSED_TEXT_RATE)


def trains_text(settings: TrainSettings, model: BaseModel) -> bool:
    """Whether steps change the text encoder, so that no caption can be encoded ahead."""
    if settings.trainable != "lora":
        return settings.trainable == "full_with_text"
    return adapts_text_encoder(model.hf, lora_spec(model.hf, settings).pattern)


def _check_codebooks(settings: TrainSettings, n_codebooks: int) -> None:
    weights = settings.codebook_weights
    if weights is not None and (len(weights) != n_codebooks or not any(weights)):
        raise UserError(
            f"--codebook_weights {' '.join(f'{weight:g}' for weight in weights)}: the model has "
            f"{n_codebooks} codebooks; give one weight for each, at least one of them above 0."
        )
