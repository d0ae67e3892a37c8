"""One optimizer step over several batches, and the division of its clips into batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from musicgen_lora.dataset.batches import Batch, ClipDataset, collate
from musicgen_lora.errors import RunError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime import processes


@dataclass(frozen=True)
class StepResult:
    """Figures of one step: the loss of each codebook in nats, the gradient norm before clipping."""

    codebooks: list[float]
    grad_norm: float

    @property
    def loss(self) -> float:
        return sum(self.codebooks) / len(self.codebooks)


@dataclass(frozen=True)
class Learner:
    """What a step works on, and how.

    Args:
        scaler: for fp16, else None.
        codebook_weights: K relative weights of the codebooks in the gradient; the figures of a
            step are unweighted. None weights all alike.
        autocast: dtype that fp32 weights are multiplied in (full training), else None.
        sharded: whether each process has only a shard of the parameters.
    """

    model: BaseModel
    parameters: Sequence[nn.Parameter]
    optimizers: Sequence[torch.optim.Optimizer]
    max_grad_norm: float = 1.0
    scaler: torch.amp.GradScaler | None = None
    codebook_weights: Sequence[float] | None = None
    autocast: torch.dtype | None = None
    sharded: bool = False


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate" in str(error)


def optimise_step(
    learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
) -> StepResult | None:
    """Accumulates the gradient over all batches of all processes and takes one step.

    The loss is that of one big batch: each codebook's cross-entropy is summed over the batches
    and divided by its number of frames in all of them, however ragged they are.

    Args:
        learner: its optimizers already have the step's rates.
        batches: this process's share of the step.
        totals: predicted frames of each codebook in the whole step, `[K]`.
        where: names step and clips in error messages.

    Returns:
        The figures; None if memory ran out in a process, with nothing changed.

    Raises:
        RunError: the loss or a gradient is not finite, and the parameters are unchanged; or, with
            sharded weights, memory ran out or another process is gone.
    """
    means = _try_to_accumulate(learner, batches, totals, where)
    if processes.all_reduce_max(int(means is None)) or means is None:
        _forget_gradients(learner)
        return None
    means = processes.all_reduce_sum(means)
    if not bool(torch.isfinite(means).all()):
        _forget_gradients(learner)
        raise RunError(
            f"The loss is not finite {where}; the step was not taken. Lower --learning_rate."
        )
    if not learner.sharded:
        processes.all_reduce_gradients(learner.parameters)
    norm = _apply_gradients(learner, where)
    return StepResult([float(value) for value in means], norm)


def _try_to_accumulate(
    learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
) -> torch.Tensor | None:
    """The result of `_accumulate`, or None if memory runs out."""
    try:
        return _accumulate(learner, batches, totals)
    except RuntimeError as error:
        if learner.sharded and processes.lost_peer(error):
            raise RunError(processes.LOST_PEER) from error
        if not is_out_of_memory(error):
            raise
        if learner.sharded:
            # The others are waiting for this process in the middle of the model, so the step can't
            # be retried.
            raise RunError(
                f"Out of memory {where}; lower --batch_size or --max_duration."
            ) from error
        return None


def _accumulate(learner: Learner, batches: Sequence[Batch], totals: torch.Tensor) -> torch.Tensor:
    """Adds the batches' gradients to the parameters' and returns the batches' part of each
    codebook's loss, `[K]`."""
    model, scaler, autocast = learner.model, learner.scaler, learner.autocast
    n_codebooks, device = model.shape.n_codebooks, model.device
    totals = totals.to(device)
    weights = torch.tensor(learner.codebook_weights or [1.0] * n_codebooks, device=device)
    shares = weights / weights.sum()
    means = torch.zeros(n_codebooks, device=device)
    for batch in batches:
        text = model.encode_text(batch.captions)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            sums, _ = model.losses(
                batch.codes.to(device), batch.n_frames.to(device), text, batch.melodies
            )
        codebooks = sums.sum(0) / totals
        loss = (codebooks * shares).sum()
        (loss if scaler is None else scaler.scale(loss)).backward()
        means += codebooks.detach()
    return means


def _apply_gradients(learner: Learner, where: str) -> float:
    """Clips the gradients, steps and drops them. Returns their norm before clipping."""
    scaler = learner.scaler
    if scaler is not None:
        for optimizer in learner.optimizers:
            scaler.unscale_(optimizer)
    total_norm: Any = nn.utils.clip_grad_norm_(learner.parameters, learner.max_grad_norm)
    norm = float(total_norm.full_tensor() if learner.sharded else total_norm)
    # With fp16 an overflow is expected: the scaler skips the step and halves its scale.
    if math.isfinite(norm):
        for optimizer in learner.optimizers:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
    elif scaler is None:
        _forget_gradients(learner)
        raise RunError(
            f"The gradient is not finite {where}; the step was not taken. Lower --learning_rate."
        )
    if scaler is not None:
        scaler.update()
    _forget_gradients(learner)
    return norm


def _forget_gradients(learner: Learner) -> None:
    for parameter in learner.parameters:
        parameter.grad = None


def step_batches(dataset: ClipDataset, chosen: Sequence[int], batch_size: int) -> list[Batch]:
    """This process's share of a step's samples in batches of similar length: less padding, same
    gradient.

    Args:
        batch_size: of each batch; the last one may be smaller.
    """
    by_length = np.argsort(dataset.n_frames()[chosen], kind="stable").tolist()
    share = [chosen[place] for place in by_length][processes.rank() :: processes.world_size()]
    return [
        collate([dataset[index] for index in share[start : start + batch_size]])
        for start in range(0, len(share), batch_size)
    ]


def evened_out(
    dataset: ClipDataset, batches: Sequence[Batch], chosen: Sequence[int], batch_size: int
) -> list[Batch]:
    """Pads the batches to as many as the busiest process has, as sharded weights require. Those
    added hold a clip that counts as empty, from which nothing is learned."""
    n_batches = math.ceil(math.ceil(len(chosen) / processes.world_size()) / batch_size)
    spare = collate([dataset[chosen[0]]])
    spare = replace(spare, n_frames=torch.zeros_like(spare.n_frames))
    return [*batches, *[spare] * (n_batches - len(batches))]
