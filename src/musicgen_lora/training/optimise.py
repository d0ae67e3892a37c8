"""One optimizer step over several batches, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.dataset.batches import Batch
from musicgen_lora.errors import RunError
from musicgen_lora.model.loss import codebook_cross_entropies
from musicgen_lora.model.musicgen import decoder_states, model_shape
from musicgen_lora.model.text import TextStates
from musicgen_lora.runtime import processes
from musicgen_lora.training.sharding import is_sharded

DECAY_SHARE = 0.3
"""Of a wsd schedule's steps."""


@dataclass(frozen=True)
class StepResult:
    """Figures of one step: loss of each codebook in nats, and gradient norm before clipping."""

    codebooks: list[float]
    grad_norm: float

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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate" in str(error)


def optimise_step(
    model: MusicgenForConditionalGeneration,
    batches: Sequence[Batch],
    text: TextStates,
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Sequence[nn.Parameter],
    *,
    totals: torch.Tensor,
    max_grad_norm: float,
    scaler: torch.amp.GradScaler | None,
    codebook_weights: Sequence[float] | None = None,
    autocast: torch.dtype | None = None,
    where: str,
) -> StepResult | None:
    """Accumulates the gradient of all batches of all processes and steps once.

    The loss is that of one big batch: each codebook's cross-entropy is summed over the batches
    and divided by its number of frames in all of them, however ragged they are.

    Args:
        model: holds the parameters.
        batches: this process's share of the step.
        text: gives the conditions.
        optimizers: with their rates already set.
        parameters: that they train.
        totals: `[K]`, predicted frames of each codebook in the whole step.
        max_grad_norm: gradients are clipped to it.
        scaler: for fp16, else None.
        codebook_weights: K weights of the codebooks in the gradient, relative to each other; the
            figures returned are without them. None weighs all alike.
        autocast: type that fp32 weights are multiplied in (full training), else None.
        where: names step and clips in the message, should the loss be NaN.

    Returns:
        The figures; None if memory ran out in a process. Then nothing was changed.

    Raises:
        RunError: the loss or a gradient is not finite, and the parameters are as before; or sharded
            weights, where memory ran out or another process is gone.
    """
    sharded = is_sharded(parameters)
    means, exhausted = None, False
    try:
        means = _accumulate(model, batches, text, totals, scaler, codebook_weights, autocast)
    except RuntimeError as error:
        if sharded and processes.lost_peer(error):
            raise RunError(processes.LOST_PEER) from error
        if not is_out_of_memory(error):
            raise
        if sharded:
            # The others wait for this process in the middle of the model: no step can be tried
            # again.
            raise RunError(
                f"Out of memory {where}; lower --batch_size or --max_duration."
            ) from error
        exhausted = True
    if processes.largest(int(exhausted)) or means is None:
        _forget(parameters)
        return None
    means = processes.add_up(means)
    if not bool(torch.isfinite(means).all()):
        _forget(parameters)
        raise RunError(f"The loss is not finite {where}; nothing was changed by this step.")
    if not sharded:
        processes.add_up_gradients(parameters)
    if scaler is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    total_norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    norm = float(total_norm.full_tensor() if isinstance(total_norm, DTensor) else total_norm)
    # Under fp16 an overflow is part of the method: the scaler skips the step and halves itself.
    if math.isfinite(norm):
        for optimizer in optimizers:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
    elif scaler is None:
        _forget(parameters)
        raise RunError(f"The gradient is not finite {where}; nothing was changed by this step.")
    if scaler is not None:
        scaler.update()
    _forget(parameters)
    return StepResult([float(value) for value in means], norm)


def _accumulate(
    model: MusicgenForConditionalGeneration,
    batches: Sequence[Batch],
    text: TextStates,
    totals: torch.Tensor,
    scaler: torch.amp.GradScaler | None,
    codebook_weights: Sequence[float] | None,
    autocast: torch.dtype | None,
) -> torch.Tensor:
    """Adds the batches' gradients to those of the parameters; returns their part of each
    codebook's loss, `[K]`."""
    shape = model_shape(model)
    device = model.decoder.device
    totals = totals.to(device)
    weights = torch.tensor(codebook_weights or [1.0] * shape.n_codebooks, device=device)
    shares = weights / weights.sum()
    means = torch.zeros(shape.n_codebooks, device=device)
    for batch in batches:
        codes = batch.codes.to(device)
        states, mask = text.batch(batch.captions, device)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            hidden = decoder_states(model, codes, states, mask, batch.melodies)
            sums, _ = codebook_cross_entropies(
                hidden, list(model.decoder.lm_heads), codes, batch.n_frames.to(device), shape.delays
            )
        codebooks = sums.sum(0) / totals
        loss = (codebooks * shares).sum()
        (loss if scaler is None else scaler.scale(loss)).backward()
        means += codebooks.detach()
    return means


def _forget(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
