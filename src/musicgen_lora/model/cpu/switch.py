"""One switch for the fast paths: blocked attention, fused LoRA products, the allocator.

They compute the same, up to rounding. The switch works before an adapter is added or after, and may
be used again when the model was moved.
"""

from __future__ import annotations

from transformers import MusicgenForConditionalGeneration

from musicgen_lora.model.cpu.attention import use_blocked_attention
from musicgen_lora.model.cpu.lora_linear import fuse_products
from musicgen_lora.runtime.allocator import keep_freed_memory


def enable(model: MusicgenForConditionalGeneration, precision: str) -> None:
    """Turns on the fast paths of the device that the decoder is on. On a CPU the process keeps the
    memory that tensors free, and a decoder that computes in bf16 attends in blocks. On every device
    the products of LoRA layers that are trained are fused.

    Args:
        model: changed in place.
        precision: that its decoder computes in, which may be less than its weights are held in.
    """
    if model.decoder.device.type == "cpu":
        keep_freed_memory()
        if precision == "bf16":
            use_blocked_attention(model)
    fuse_products(model)
