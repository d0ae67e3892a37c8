"""The precision in which a model is held, and why."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_FROM = 1_000_000
"""Parameters from which bf16 pays off on a CPU: smaller layers are dominated by overhead."""


def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions to multiply bf16 (AVX-512 BF16 or AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)


def choose_training_precision(
    wanted: str, fp16: bool, device: torch.device, n_parameters: int
) -> tuple[str, str]:
    """The precision of the frozen base, and a sentence that says why.

    Args:
        wanted: "auto", "fp32", "bf16" or "fp16".
        fp16: the `--fp16` flag: half precision, of whichever kind the device is fast at.
    """
    if wanted != "auto" and not fp16:
        return wanted, "as asked."
    if device.type == "cuda":
        if fp16 or not torch.cuda.is_bf16_supported():
            return "fp16", "with loss scaling; the adapter is trained in fp32."
        return "bf16", "this GPU is fast at it; the adapter is trained in fp32."
    if device.type == "cpu" and cpu_has_bf16() and (fp16 or n_parameters >= BF16_FROM):
        instead = "used for --fp16, since fp16 is slow on a CPU and " if fp16 else ""
        return "bf16", f"{instead}this CPU multiplies bf16 natively; the adapter is in fp32."
    if fp16:
        return "fp32", f"used for --fp16, since this {device.type} is not fast at half precision."
    return "fp32", "the model is small enough for it."
