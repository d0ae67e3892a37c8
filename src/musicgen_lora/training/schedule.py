"""The learning rate of a run, which settings and base decide together, and of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from musicgen_lora.model.lora.initial import FROM_BASE
from musicgen_lora.training.optimizers import RATE_SHARE

if TYPE_CHECKING:
    from rich.console import Console
    from torch.optim import Optimizer

    from musicgen_lora.config import TrainSettings
    from musicgen_lora.model.base_model import BaseModel
    from musicgen_lora.training.packed.settings import PackedSettings

    ScheduleSettings = TrainSettings | PackedSettings

DEFAULT_RATE, PRODIGY_RATE = 3e-4, 1.0
DECAY_SHARE = 0.3
"""Share of the steps over which a wsd schedule decays."""


def with_rate(settings: TrainSettings, model: BaseModel, console: Console) -> TrainSettings:
    """The settings with a learning rate, and without a weight decay that would change the base.

    The rate is the given one, else what the base advises for adapters, else 3e-4. It is printed
    unless it was given and the base advises no other.
    """
    adapts = settings.trainable == "lora"
    advised = model.facts.advised_learning_rate if adapts else None
    rate = settings.learning_rate
    if settings.optimizer == "prodigy":
        rate = rate or PRODIGY_RATE
    elif rate is None:
        rate = advised or DEFAULT_RATE
        why = "as this base advises for adapters" if advised else "the default"
        console.print(f"Learning rate {rate:g}, {why}; change it with --learning_rate.")
    elif advised and not math.isclose(rate, advised):
        console.print(f"Learning rate {rate:g}, as given; this base advises {advised:g}.")
    decay = settings.weight_decay
    if adapts and settings.lora_init in FROM_BASE and decay:
        # It would shrink the part of the base that the adapter holds.
        console.print(
            f"No weight decay: with lora_init {settings.lora_init} it would change the base."
        )
        decay = 0.0
    return replace(settings, learning_rate=rate, weight_decay=decay)


def set_learning_rate(
    optimizers: Iterable[Optimizer], settings: ScheduleSettings, step: int, n_steps: int
) -> float:
    """Sets the optimizers' rate for step 0..n_steps-1, times a parameter group's own share of it
    (`RATE_SHARE`). Returns the rate."""
    assert settings.learning_rate is not None
    rate = learning_rate_at(
        step,
        n_steps,
        peak=settings.learning_rate,
        schedule=settings.lr_schedule,
        warmup_share=settings.warmup_share,
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get(RATE_SHARE, 1.0)
    return rate


def learning_rate_at(
    step: int, n_steps: int, *, peak: float, schedule: str, warmup_share: float
) -> float:
    """The rate of step 0..n_steps-1: linear warm-up, then cosine or linear to 0, constant, or wsd
    (warmup-stable-decay: constant, then linear to 0 over the last 30 %; Hu et al., MiniCPM, 2024),
    with which the end of a long run can be moved until its decay begins."""
    n_warmup = math.ceil(warmup_share * n_steps)
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    if schedule == "constant":
        return peak
    if schedule == "wsd":
        return peak * min(1.0, (n_steps - step) / (DECAY_SHARE * n_steps))
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return peak * ((1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1 - progress)
