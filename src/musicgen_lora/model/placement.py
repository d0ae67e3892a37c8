"""Where the parts of a model go, and what is switched on there."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch
from torch import nn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.model.cpu.attention import use_blocks
from musicgen_lora.runtime.precision import DTYPES

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Has this process keep what tensors on a CPU free, for the next ones: glibc returns it to the
    system at once, and a step then waits for as many fresh pages as it has activations. Other C
    libraries keep it by themselves or cannot be told; there nothing is done."""
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
            # Older versions take no more than 32 MiB.
            mallopt(M_MMAP_THRESHOLD, 1 << 25)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def place(
    model: MusicgenForConditionalGeneration,
    device: torch.device,
    precision: str,
    *,
    trained: bool = False,
) -> None:
    """Moves the language model to its device and precision. T5 and EnCodec stay in fp32: their
    work is cached, and T5 overflows in fp16. In bf16 on a CPU the decoder attends in blocks, and on
    any CPU the process keeps the memory that it frees.

    Args:
        model: changed in place.
        device: where it goes.
        precision: that it computes in.
        trained: the weights themselves are trained, and stay in fp32; only a frozen base is held in
            less.
    """
    dtype = DTYPES["fp32" if trained else precision]
    parts: list[nn.Module] = [model.decoder]
    for name in ("enc_to_dec_proj", "audio_enc_to_dec_proj"):
        if hasattr(model, name):
            parts.append(getattr(model, name))
    for part in parts:
        part.to(device=device, dtype=dtype)
    if device.type == "cpu":
        keep_freed_memory()
        if precision == "bf16":
            use_blocks(model)
