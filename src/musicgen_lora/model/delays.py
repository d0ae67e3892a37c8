"""The delay pattern: codebook k of a frame is spoken k steps later.

Source: Copet et al., Simple and Controllable Music Generation (2023), section 2.3, and
audiocraft's `DelayedPatternProvider` with `keep_only_valid_steps=True`: of the delayed
sequence only the first T steps after the start column are kept, so codebook k loses its
last k frames.
"""

from __future__ import annotations

import torch


def codebook_delays(n_codebooks: int, n_channels: int) -> list[int]:
    """Steps by which each codebook is late: 0, 1, 2, 3 for mono; stereo models interleave left
    and right, which share a delay: 0, 0, 1, 1, 2, 2, 3, 3.

    Raises:
        ValueError: a stereo model with an odd number of codebooks.
    """
    if n_channels == 1:
        return list(range(n_codebooks))
    if n_codebooks % 2:
        raise ValueError(f"A stereo model pairs its codebooks, but this one has {n_codebooks}.")
    return [codebook // 2 for codebook in range(n_codebooks)]


def delay_codes(codes: torch.Tensor, delays: list[int], special: int) -> torch.Tensor:
    """What the decoder reads under teacher forcing.

    Args:
        codes: `[B, K, T]`, values below `special`.
        delays: of each codebook, K of them.
        special: the token of start and padding.

    Returns:
        `[B, K, T]`: a column of `special`, then the first T - 1 steps of the delayed sequence.
        Step s of codebook k holds frame s - 1 - delays[k], or `special` before its first.
    """
    n_frames = codes.shape[-1]
    delayed = torch.full_like(codes, special)
    for codebook, delay in enumerate(delays):
        kept = n_frames - 1 - delay
        if kept > 0:
            delayed[:, codebook, delay + 1 :] = codes[:, codebook, :kept]
    return delayed


def n_predicted(n_frames: torch.Tensor, delays: list[int]) -> torch.Tensor:
    """How many frames of each codebook the loss sees: `[B]` lengths to `[B, K]` counts."""
    # Delays as numbers: a copy from the host would forbid capturing the step as a graph.
    return torch.stack([n_frames - delay for delay in delays], dim=1).clamp(min=0)
