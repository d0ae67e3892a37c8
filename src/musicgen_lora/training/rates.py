"""The learning rate and the weight decay of a run, where settings and base decide them together."""

from __future__ import annotations

import math
from dataclasses import replace

from rich.console import Console
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.config import TrainSettings
from musicgen_lora.model.base_facts import base_facts
from musicgen_lora.model.lora.initial import FROM_BASE

DEFAULT_RATE, PRODIGY_RATE = 3e-4, 1.0


def with_rate(
    settings: TrainSettings, model: MusicgenForConditionalGeneration, console: Console
) -> TrainSettings:
    """The settings with a learning rate, and without a decay that would move the base.

    The rate is the given one, else what the base advises for adapters, else 3e-4. It is said unless
    it was given and nobody advises another.

    Args:
        settings: of the run.
        model: the base.
        console: tells what was taken.
    """
    adapts = settings.trainable == "lora"
    advised = base_facts(model).advised_learning_rate if adapts else None
    rate = settings.learning_rate
    if settings.optimizer == "prodigy":
        rate = rate or PRODIGY_RATE
    elif rate is None:
        rate = advised or DEFAULT_RATE
        why = "as this base advises for adapters" if advised else "the default"
        console.print(f"Learning rate {rate:g}, {why}; --learning_rate gives another.")
    elif advised and not math.isclose(rate, advised):
        console.print(f"Learning rate {rate:g}, as given; this base advises {advised:g}.")
    decay = settings.weight_decay
    if adapts and settings.lora_init in FROM_BASE and decay:
        # It would shrink the part of the base that the adapter holds.
        console.print(f"No weight decay: with lora_init {settings.lora_init} it moves the base.")
        decay = 0.0
    return replace(settings, learning_rate=rate, weight_decay=decay)
