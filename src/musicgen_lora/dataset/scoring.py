"""The loss of a model on windows of a dataset, window by window and codebook by codebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from musicgen_lora.dataset.batches import Window, collate
from musicgen_lora.model.base_model import BaseModel

Windows = Sequence[Window]
"""From `dataset.batches.fixed_windows`."""
# Not of `console`: a step runs where there is no rich.
OnStep = Callable[[int, int], None]
"""Called with the number of windows done and their total."""


Scores = Callable[..., tuple[torch.Tensor, torch.Tensor]]
"""`BaseModel.losses`, as sums or per frame."""


def window_losses(
    model: BaseModel,
    windows: Windows,
    batch_size: int,
    on_step: OnStep = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Teacher-forced cross-entropy of each window, given its caption and its melody if it has one.

    Returns:
        Sums in nats and counts of predicted frames, each `[windows, K]` float64.
    """
    sums, counts = np.zeros((2, len(windows), model.shape.n_codebooks))
    for rows, found, n in _scored(model, model.losses, windows, batch_size, on_step):
        sums[rows], counts[rows] = found, n
    return sums, counts


def position_losses(
    model: BaseModel,
    windows: Windows,
    batch_size: int,
    part_frames: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Like `window_losses`, for each stretch of `part_frames` frames: both `[windows, K, P]`, zero
    where a window has no such stretch.
    """
    longest = max((len(window.codes) for window in windows), default=0)
    n_parts = -(-longest // part_frames)
    sums, counts = np.zeros((2, len(windows), model.shape.n_codebooks, n_parts))
    starts = part_frames * np.arange(n_parts)
    terms = partial(model.losses, by_frame=True)
    for rows, found, n in _scored(model, terms, windows, batch_size, lambda done, total: None):
        whole = np.zeros((*n.shape, n_parts * part_frames))
        whole[..., : found.shape[-1]] = found
        sums[rows] = whole.reshape(*n.shape, n_parts, part_frames).sum(axis=-1)
        counts[rows] = np.clip(n[..., None] - starts, 0, part_frames)
    return sums, counts


@torch.no_grad()
def _scored(
    model: BaseModel,
    score: Scores,
    windows: Windows,
    batch_size: int,
    on_step: OnStep,
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yields rows of windows with their losses and frame counts, a batch at a time."""
    device = model.device
    # Batch windows of similar length, for less padding.
    order = sorted(range(len(windows)), key=lambda index: len(windows[index].codes))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([windows[i] for i in chosen])
        text = model.encode_text(batch.captions)
        found, n = score(batch.codes.to(device), batch.n_frames.to(device), text, batch.melodies)
        yield chosen, found.cpu().numpy().astype(np.float64), n.cpu().numpy()
        on_step(start + len(chosen), len(order))
