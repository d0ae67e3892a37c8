"""Teacher-forced cross-entropy, equal to audiocraft's.

Reference: audiocraft `LMModel.compute_predictions(keep_only_valid_steps=True)` and
`MusicGenSolver._compute_cross_entropy`: the cross-entropy of each codebook over its valid
positions, then the mean over the codebooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from musicgen_lora.model.delays import Delays

CPU_ROWS = 128
"""Rows of logits that are in float32 at a time on a CPU."""


def codebook_cross_entropies(
    hidden: torch.Tensor,
    heads: Sequence[nn.Module],
    codes: torch.Tensor,
    n_frames: torch.Tensor,
    delays: Delays,
    *,
    by_frame: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropy of each clip and codebook, summed or frame by frame.

    The logits are computed one codebook at a time, so that the peak is `[B, T, V]`, not
    `[B, K, T, V]`.

    Args:
        hidden: `[B, T, D]`, the decoder's last states for the delayed codes; step s predicts frame
            s - delays[k] of codebook k.
        heads: K linear maps from D to V.
        codes: `[B, K, T]`; frames past a clip's length may hold anything in 0..V-1.
        n_frames: `[B]`, true lengths.
        by_frame: return the terms of the sums.

    Returns:
        Sums in nats `[B, K]` (float32), or their terms `[B, K, T]`, 0 for frames that aren't
        predicted; and the numbers of predicted frames `[B, K]`, which come before the others.
    """
    counts = delays.n_predicted(n_frames)  # [B, K]
    parts = _codebook_losses(hidden, heads, codes, counts, delays)
    if not by_frame:
        return torch.stack([losses.sum(dim=1) for losses in parts], dim=1), counts
    found = hidden.new_zeros(codes.shape, dtype=torch.float32)  # [B, K, T]
    for codebook, losses in enumerate(parts):
        found[:, codebook, : losses.shape[1]] = losses
    return found, counts


def _codebook_losses(
    hidden: torch.Tensor,
    heads: Sequence[nn.Module],
    codes: torch.Tensor,
    counts: torch.Tensor,
    delays: Delays,
) -> Iterator[torch.Tensor]:
    """Yields the losses of one codebook after another, `[B, T - delay]`; 0 past a clip's end."""
    frame = torch.arange(codes.shape[-1], device=codes.device)  # [T]
    parts = zip(heads, delays.states(hidden), delays.targets(codes), strict=True)
    for codebook, (head, states, chosen) in enumerate(parts):
        # Flattened rows: for a batched view, torch would copy the head's weight for each clip.
        rows, targets = states.flatten(0, 1), chosen.flatten()  # [N, D] and [N], N = B (T - delay)
        losses: Any = (
            _HeadLosses.apply(rows, head.weight, targets)
            if type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad
            else _RowLosses.apply(head(rows), targets)
        )  # [N]
        valid = frame[: chosen.shape[1]] < counts[:, codebook, None]  # [B, T - delay]
        yield losses.view(chosen.shape) * valid


class _RowLosses(torch.autograd.Function):
    """Cross-entropy of each row: logits `[N, V]` and targets `[N]` to `[N]` in float32.

    Like torch's, but the gradient is computed in the forward pass: only one tensor is kept, in the
    logits' own precision.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(gradient)
        return _row_losses(logits, targets, gradient)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _times_rows(ctx.saved_tensors[0], grads[0]), None


class _HeadLosses(torch.autograd.Function):
    """The same from states `[N, D]` and a frozen head `[V, D]`, with targets `[N]`, to `[N]`.

    The gradient is propagated to the states in the forward pass: what is kept is D wide, not V.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        logits = functional.linear(rows, weight)  # [N, V]
        if not ctx.needs_input_grad[0]:
            return _row_losses(logits, targets, None)
        losses = _row_losses(logits, targets, logits)
        # `logits` now holds the gradient. Under autocast its dtype differs from the head's.
        gradient = logits @ weight.to(logits.dtype)  # [N, D]
        ctx.save_for_backward(gradient.to(rows.dtype))
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _times_rows(ctx.saved_tensors[0], grads[0]), None, None


def _row_losses(
    logits: torch.Tensor, targets: torch.Tensor, gradient: torch.Tensor | None
) -> torch.Tensor:
    """Losses `[N]`, at most 87 nats each; their gradient is written to `gradient`, which may be the
    logits themselves. A few rows at a time on a CPU, so that the float32 values fit its cache."""
    n_rows = CPU_ROWS if logits.device.type == "cpu" else max(len(logits), 1)
    chances = logits.new_empty(len(logits), dtype=torch.float32)  # [N]
    for begin in range(0, len(logits), n_rows):
        rows = slice(begin, begin + n_rows)
        chosen = targets[rows, None]  # [rows, 1]
        found = logits[rows].float().softmax(dim=-1)  # [rows, V]
        chances[rows] = found.gather(1, chosen)[:, 0]
        if gradient is not None:
            # Softmax, minus one at the target.
            gradient[rows] = found.scatter_add_(1, chosen, found.new_full(chosen.shape, -1.0))
    # The smallest normal number: anything less has no finite logarithm in float32.
    return chances.clamp_(min=torch.finfo(torch.float32).tiny).log_().neg_()


def _times_rows(gradient: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    return gradient * factors[:, None].to(gradient.dtype)
