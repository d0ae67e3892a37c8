"""The held-out loss, the gate before the first step, and the effect check after the last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from musicgen_lora.dataset.batches import collate
from musicgen_lora.dataset.scoring import OnStep, Windows, window_losses
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime import processes
from musicgen_lora.training.step import is_out_of_memory


def held_out_losses(
    model: BaseModel,
    windows: Windows,
    batch_size: int,
    on_step: OnStep = lambda done, total: None,
    *,
    sharded: bool = False,
) -> list[float]:
    """The loss of each codebook over all windows, in nats; each process scores its share of them.

    Args:
        sharded: whether each process has only a shard of the weights, so that all must run the
            model equally often.
    """
    share = windows[processes.rank() :: processes.world_size()]
    sums, counts = window_losses(model, share, batch_size, on_step)
    # The first process has the most windows.
    busiest = math.ceil(len(windows) / processes.world_size())
    idle = math.ceil(len(share) / batch_size) < math.ceil(busiest / batch_size)
    if sharded and idle:
        window_losses(model, windows[:1], 1)
    both = processes.all_reduce_sum(
        torch.from_numpy(np.stack([sums.sum(axis=0), counts.sum(axis=0)]))
    )
    return [float(total / count) for total, count in both.T]


def check_base(codebooks: Sequence[float], vocabulary: int, allow_random_base: bool) -> None:
    """The gate: a pretrained base predicts music better than chance, or something is wrong.

    Raises:
        UserError: the base's loss is at or above ln(vocabulary), or not finite.
    """
    loss, chance = sum(codebooks) / len(codebooks), math.log(vocabulary)
    if not math.isfinite(loss):
        raise UserError(
            f"The base model's loss on the data is {loss}: its weights are broken; copy it again, "
            "or use another base."
        )
    if loss >= chance and not allow_random_base:
        each = ", ".join(f"{value:.2f}" for value in codebooks)
        raise UserError(
            f"The base model's loss on the data is {loss:.2f} (codebooks {each}), no better than "
            f"chance (ln {vocabulary} = {chance:.2f}): its weights are random or the codec is "
            "another model's. Check the model path; --allow_random_base trains anyway."
        )


@torch.no_grad()
def adapter_effect(
    base_alone: Callable[[], AbstractContextManager[None]],
    model: BaseModel,
    windows: Windows,
    batch_size: int,
) -> dict[str, float]:
    """How far the adapter changes the predictions, from the same windows with it on and off.

    Args:
        base_alone: gives a context that switches it off.
        batch_size: windows that go through the model together; halved if memory runs out.

    Returns:
        `mean_kl` (nats per token, KL(adapter || base)) and `max_logit_change`.

    Raises:
        RunError: nothing changes at all, or memory runs out with a single window.
    """
    total, n_tokens, largest, at = 0.0, 0, 0.0, 0
    while at < len(windows):
        try:
            found = _batch_effect(base_alone, model, windows[at : at + batch_size])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise RunError(
                    "Out of memory with a single clip while measuring the adapter's effect; "
                    "best_model and the checkpoints are intact. Lower --max_duration, or resume "
                    "where more memory is free."
                ) from error
        else:
            at += batch_size
            total, n_tokens = total + found[0], n_tokens + found[1]
            largest = max(largest, found[2])
            continue
        # Outside the handler, because its traceback keeps the tensors alive.
        batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if largest == 0.0:
        raise RunError(
            "The adapter changes nothing: the predictions are equal with it on and off. Train "
            "longer or raise --learning_rate."
        )
    return {"mean_kl": total / n_tokens, "max_logit_change": largest}


def _batch_effect(
    base_alone: Callable[[], AbstractContextManager[None]],
    model: BaseModel,
    windows: Windows,
) -> tuple[float, int, float]:
    """Sum of KL(adapter || base) over the tokens of a batch, their number, and the largest change
    of a logit."""
    batch = collate(windows)
    codes = batch.codes.to(model.device)
    with_adapter = model.logits(codes, model.encode_text(batch.captions), batch.melodies)
    with base_alone():
        # Encode the text again: the adapter may be on the text encoder.
        without = model.logits(codes, model.encode_text(batch.captions), batch.melodies)
    total, n_tokens, largest = 0.0, 0, 0.0
    n_predicted = model.delays.n_predicted(batch.n_frames)
    frames = torch.arange(codes.shape[-1])
    # One codebook at a time: probabilities of all would take several times the logits' memory.
    for k, ends in enumerate(n_predicted.T):
        valid = (frames < ends[:, None]).to(model.device)
        p, q = with_adapter[:, k][valid], without[:, k][valid]
        largest = max(largest, float((p - q).abs().max()))
        log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
        total += float((log_p.exp() * (log_p - log_q)).sum(dtype=torch.float64))
        n_tokens += int(valid.sum())
    return total, n_tokens, largest
