"""Held-out loss, the gate before the first step, and the effect check after the last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.data.batches import Batch, Window, collate
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.model.loss import codebook_cross_entropies
from musicgen_lora.model.musicgen import decoder_states, frame_logits, model_shape
from musicgen_lora.model.text import TextStates
from musicgen_lora.training import processes
from musicgen_lora.training.sharding import in_parts

Windows = Sequence[Window]
"""From `data.batches.fixed_windows`."""


@torch.no_grad()
def window_losses(
    model: MusicgenForConditionalGeneration, windows: Windows, text: TextStates, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Teacher-forced cross-entropy of each window, with its caption, and its tune if it has one.

    Returns:
        Sums in nats and numbers of predicted frames, each `[windows, K]` float64.
    """
    shape = model_shape(model)
    device = model.decoder.device
    sums = np.zeros((len(windows), shape.n_codebooks))
    counts = np.zeros((len(windows), shape.n_codebooks))
    # Windows of like length together: less padding.
    order = sorted(range(len(windows)), key=lambda index: len(windows[index].codes))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = _together([windows[i] for i in chosen])
        states, mask = text.batch(batch.captions, device)
        codes = batch.codes.to(device)
        hidden = decoder_states(model, codes, states, mask, batch.melodies)
        batch_sums, batch_counts = codebook_cross_entropies(
            hidden, list(model.decoder.lm_heads), codes, batch.n_frames.to(device), shape.delays
        )
        sums[chosen], counts[chosen] = batch_sums.cpu().numpy(), batch_counts.cpu().numpy()
    return sums, counts


def _together(windows: Windows) -> Batch:
    return collate(
        [window.codes for window in windows],
        [window.caption for window in windows],
        [window.melody for window in windows],
    )


def held_out_losses(
    model: MusicgenForConditionalGeneration, windows: Windows, text: TextStates, batch_size: int
) -> list[float]:
    """Loss of each codebook over all windows, in nats, each process reading its share of them."""
    share = windows[processes.rank() :: processes.world_size()]
    sums, counts = window_losses(model, share, text, batch_size)
    # Sharded weights need all processes at each pass, and the first has the most windows.
    busiest = math.ceil(len(windows) / processes.world_size())
    idle = math.ceil(len(share) / batch_size) < math.ceil(busiest / batch_size)
    if idle and in_parts(model):
        window_losses(model, windows[:1], text, 1)
    both = processes.add_up(torch.from_numpy(np.stack([sums.sum(axis=0), counts.sum(axis=0)])))
    return [float(total / count) for total, count in both.T]


def check_base(codebooks: Sequence[float], vocabulary: int, allow_random_base: bool) -> None:
    """The gate: a pretrained base predicts music better than chance, or something is wrong.

    Raises:
        UserError: the base's loss is at or above ln(vocabulary), or not a number.
    """
    loss, chance = sum(codebooks) / len(codebooks), math.log(vocabulary)
    if not math.isfinite(loss):
        raise UserError(f"The base model's loss on the data is {loss}: its weights are broken.")
    if loss >= chance and not allow_random_base:
        each = ", ".join(f"{value:.2f}" for value in codebooks)
        raise UserError(
            f"The base model's loss on the data is {loss:.2f} (codebooks {each}), no better than "
            f"chance (ln {vocabulary} = {chance:.2f}): its weights are random or the codec is "
            "another model's. Check the model path; --allow_random_base trains all the same."
        )


@torch.no_grad()
def adapter_effect(
    base_alone: Callable[[], AbstractContextManager[None]],
    model: MusicgenForConditionalGeneration,
    windows: Windows,
    text: TextStates,
) -> dict[str, float]:
    """How far the adapter moves the predictions: the same windows with it on and off.

    Args:
        base_alone: a context that switches it off.
        model: that carries it.
        windows: to predict.
        text: gives the conditions, which the adapter may change too.

    Returns:
        `mean_kl` (nats a token, KL(adapter || base)) and `max_logit_change`.

    Raises:
        RunError: nothing moves at all.
    """
    batch = _together(windows)
    device = model.decoder.device
    codes = batch.codes.to(device)
    conditions = text.batch(batch.captions, device)
    with_adapter = frame_logits(model, codes, *conditions, batch.melodies)
    with base_alone():
        # Anew: the adapter may be on the text encoder.
        conditions = text.batch(batch.captions, device)
        without = frame_logits(model, codes, *conditions, batch.melodies)
    valid = ~torch.isnan(without[..., 0])
    log_p, log_q = with_adapter[valid].log_softmax(-1), without[valid].log_softmax(-1)
    largest = float((with_adapter[valid] - without[valid]).abs().max())
    if largest == 0.0:
        raise RunError(
            "The adapter changes nothing: the predictions with it on and off are equal. Train "
            "longer or raise learning_rate."
        )
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return {"mean_kl": float(divergence), "max_logit_change": largest}
