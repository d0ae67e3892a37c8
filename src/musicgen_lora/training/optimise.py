"""One optimizer step over several batches, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.data.batches import Batch
from musicgen_lora.errors import RunError
from musicgen_lora.model.delay import n_predicted
from musicgen_lora.model.loss import codebook_cross_entropies
from musicgen_lora.model.musicgen import decoder_states, model_shape
from musicgen_lora.model.text import TextStates

DECAY_SHARE = 0.3
"""Of a wsd schedule's steps."""


@dataclass(frozen=True)
class StepResult:
    """Figures of one step: loss of each codebook in nats, gradient norm before clipping, and
    number of codec frames read."""

    codebooks: list[float]
    grad_norm: float
    n_frames: int

    @property
    def loss(self) -> float:
        return sum(self.codebooks) / len(self.codebooks)


def learning_rate_at(
    step: int, n_steps: int, *, peak: float, schedule: str, warmup_share: float
) -> float:
    """Rate of step 0..n_steps-1: linear warm-up, then cosine or linear to 0, constant, or wsd
    (warmup-stable-decay: constant, then linear to 0 over the last 30 %; Hu et al., MiniCPM, 2024),
    where a long run's end can be moved as late as its decay begins."""
    n_warmup = math.ceil(warmup_share * n_steps)
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    if schedule == "constant":
        return peak
    if schedule == "wsd":
        return peak * min(1.0, (n_steps - step) / (DECAY_SHARE * n_steps))
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return peak * ((1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1 - progress)


def optimise_step(
    model: MusicgenForConditionalGeneration,
    batches: Sequence[Batch],
    text: TextStates,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    *,
    max_grad_norm: float,
    scaler: torch.amp.GradScaler | None,
    autocast: torch.dtype | None = None,
    where: str,
) -> StepResult:
    """Accumulates the gradient of all batches and steps once.

    The loss is that of one big batch: each codebook's cross-entropy is summed over the batches
    and divided by its number of frames in all of them, however ragged they are.

    Args:
        model: holds the parameters.
        batches: of the step.
        text: gives the conditions.
        optimizer: with its rate already set.
        parameters: that it trains.
        max_grad_norm: gradients are clipped to it.
        scaler: for fp16, else None.
        autocast: type that fp32 weights are multiplied in (full training), else None.
        where: names step and clips in the message, should the loss be NaN.

    Raises:
        RunError: the loss or a gradient is not finite. The parameters are as before.
    """
    shape = model_shape(model)
    device = model.decoder.device
    totals = sum(n_predicted(batch.n_frames, shape.delays).sum(0) for batch in batches)
    assert isinstance(totals, torch.Tensor)
    totals = totals.to(device)
    means = torch.zeros(shape.n_codebooks, device=device)
    for batch in batches:
        codes = batch.codes.to(device)
        states, mask = text.batch(batch.captions, device)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            hidden = decoder_states(model, codes, states, mask)
            sums, _ = codebook_cross_entropies(
                hidden, list(model.decoder.lm_heads), codes, batch.n_frames.to(device), shape.delays
            )
        codebooks = sums.sum(0) / totals
        loss = codebooks.mean()
        (loss if scaler is None else scaler.scale(loss)).backward()
        means += codebooks.detach()
    if not bool(torch.isfinite(means).all()):
        optimizer.zero_grad(set_to_none=True)
        raise RunError(f"The loss is not finite {where}; nothing was changed by this step.")
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = float(nn.utils.clip_grad_norm_(parameters, max_grad_norm))
    # Under fp16 an overflow is part of the method: the scaler skips the step and halves itself.
    if not math.isfinite(norm) and scaler is None:
        optimizer.zero_grad(set_to_none=True)
        raise RunError(f"The gradient is not finite {where}; nothing was changed by this step.")
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    n_frames = sum(int(batch.n_frames.sum()) for batch in batches)
    return StepResult([float(value) for value in means], norm, n_frames)
