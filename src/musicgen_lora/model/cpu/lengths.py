"""Few different lengths of batches in bf16, since each new one is expensive on a CPU.

For matrices of a size that it hasn't met lately, oneDNN compiles each product anew, and memory that
was freed doesn't fit. Clips that were cut at their bars give nearly every batch a length of its
own, and a step of training took half as long again. Products in fp32 are not compiled.
"""

from __future__ import annotations

import torch
from torch.nn import functional

STEP = 64
"""Frames that padded lengths are multiples of: half a block of queries (`attention.BLOCK`). Clips
of 13 to 18 s are padded by 4 % on average."""


def pad_to_step(codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Codes `[B, K, T]` with zeros behind, which causal attention from the others never sees, up to
    a multiple of `STEP` frames; as they are where a model of this dtype computes in fp32."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    if dtype == torch.float32:
        return codes
    return functional.pad(codes, (0, -codes.shape[-1] % STEP))
