"""`MusicGen.to` and `cpu.switch.enable` in one call, for callers without a `MusicGen`."""

from __future__ import annotations

import torch
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.musicgen import MusicGen


def place(
    model: MusicgenForConditionalGeneration,
    device: torch.device,
    precision: str,
    *,
    trained: bool = False,
) -> None:
    """Moves the language model to its device and precision and turns on what is quick there."""
    MusicGen(model).to(device, precision, trained=trained)
    enable(model, precision)
