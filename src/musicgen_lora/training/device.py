"""In which precision the model that trains is held, and where its parts go."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch
from torch import nn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.model.attention import use_blocks

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_FROM = 1_000_000
"""Parameters from which bf16 pays on a CPU: smaller layers are bound by overhead."""

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 by its own instructions (AVX-512 BF16 or AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)


def choose_precision(
    wanted: str, fp16: bool, device: torch.device, n_parameters: int
) -> tuple[str, str]:
    """Precision of the frozen base, and a sentence that says why.

    Args:
        wanted: "auto", "fp32", "bf16" or "fp16".
        fp16: the guide's flag: half precision, of whichever kind the device is fast at.
        device: that will train.
        n_parameters: of the base.
    """
    if wanted != "auto" and not fp16:
        return wanted, "as asked."
    if device.type == "cuda":
        if fp16 or not torch.cuda.is_bf16_supported():
            return "fp16", "with loss scaling; the adapter is trained in fp32."
        return "bf16", "the GPU is fast at it; the adapter is trained in fp32."
    if device.type == "cpu" and cpu_has_bf16() and (fp16 or n_parameters >= BF16_FROM):
        instead = "taken for --fp16, since fp16 is slow on a CPU and " if fp16 else ""
        return "bf16", f"{instead}this CPU multiplies bf16 natively; the adapter is in fp32."
    if fp16:
        return "fp32", f"taken for --fp16, since this {device.type} is not fast at half precision."
    return "fp32", "the model is small enough for it."


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
