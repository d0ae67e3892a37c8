"""The loss of a model on windows of a dataset, window by window and codebook by codebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from musicgen_lora.dataset.batches import Window, collate
from musicgen_lora.model.musicgen import MusicGen

Windows = Sequence[Window]
"""From `dataset.batches.fixed_windows`."""
OnStep = Callable[[int, int], None]
"""Told how many windows are done, and of how many."""


@torch.no_grad()
def window_losses(
    model: MusicGen,
    windows: Windows,
    batch_size: int,
    on_step: OnStep = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Teacher-forced cross-entropy of each window, with its caption, and its tune if it has one.

    Returns:
        Sums in nats and numbers of predicted frames, each `[windows, K]` float64.
    """
    device = model.device
    sums, counts = np.zeros((2, len(windows), model.shape.n_codebooks))
    # Windows of like length together: less padding.
    order = sorted(range(len(windows)), key=lambda index: len(windows[index].codes))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([windows[i] for i in chosen])
        states, mask = model.text_states(batch.captions)
        batch_sums, batch_counts = model.losses(
            batch.codes.to(device), batch.n_frames.to(device), states, mask, batch.melodies
        )
        sums[chosen], counts[chosen] = batch_sums.cpu().numpy(), batch_counts.cpu().numpy()
        on_step(start + len(chosen), len(order))
    return sums, counts
