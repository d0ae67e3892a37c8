"""Settings of a training that don't go together, or not with the base: told before the work."""

from __future__ import annotations

from transformers import MusicgenForConditionalGeneration

from musicgen_lora.config import TrainSettings
from musicgen_lora.errors import UserError
from musicgen_lora.model.lora.quantise import check_quantise
from musicgen_lora.model.lora.targets import adapts_text_encoder
from musicgen_lora.model.musicgen import model_shape
from musicgen_lora.runtime import processes
from musicgen_lora.training.optimizers import check_optimizer
from musicgen_lora.training.previews import check_previews
from musicgen_lora.training.trackers import check_trackers
from musicgen_lora.training.weights import check_weights, lora_spec


def check_settings(settings: TrainSettings) -> None:
    """Raises a UserError where settings don't go together, or a library is missing."""
    check_optimizer(settings.optimizer, settings.learning_rate, settings.trainable)
    check_trackers(settings.report_to)
    check_previews(settings)
    per_step = settings.batch_size * settings.gradient_accumulation_steps
    if per_step < processes.world_size():
        raise UserError(
            f"A step has {per_step} clips (batch_size x gradient_accumulation_steps) for "
            f"{processes.world_size()} processes; raise --gradient_accumulation_steps."
        )


def check_fit(settings: TrainSettings, model: MusicgenForConditionalGeneration) -> None:
    """Raises a UserError where settings don't go with the base."""
    _check_codebooks(settings, model_shape(model).n_codebooks)
    check_weights(settings, model)
    check_quantise(
        settings.quantise,
        trainable=settings.trainable,
        init=settings.lora_init,
        adapter=settings.adapter,
        device=processes.device(),
    )
    _check_text_rate(settings, trains_text(settings, model))


def trains_text(settings: TrainSettings, model: MusicgenForConditionalGeneration) -> bool:
    """Whether steps change the text encoder, so that no caption can be encoded ahead."""
    if settings.trainable != "lora":
        return settings.trainable == "full_with_text"
    return adapts_text_encoder(model, lora_spec(model, settings).pattern)


def _check_text_rate(settings: TrainSettings, trained: bool) -> None:
    if settings.text_encoder_learning_rate is None:
        return
    if not trained:
        raise UserError(
            "--text_encoder_learning_rate is given, but the text encoder is not trained: add it "
            "to --lora_targets, or leave the rate out."
        )
    if settings.optimizer == "prodigy":
        raise UserError(
            "--optimizer prodigy finds one rate for all; leave --text_encoder_learning_rate out."
        )


def _check_codebooks(settings: TrainSettings, n_codebooks: int) -> None:
    weights = settings.codebook_weights
    if weights is not None and (len(weights) != n_codebooks or not any(weights)):
        raise UserError(
            f"--codebook_weights {' '.join(f'{weight:g}' for weight in weights)}: the model has "
            f"{n_codebooks} codebooks, which need a weight each, one above 0 at least."
        )
