"""One switch for the fast paths: blocked attention, fused LoRA products, the allocator.

Results are the same up to rounding. The switch works before or after an adapter is added, and may
be called again after the model has been moved.
"""

from __future__ import annotations

from transformers import MusicgenForConditionalGeneration

from musicgen_lora.model.cpu.attention import use_blocked_attention
from musicgen_lora.model.cpu.lora_linear import fuse_products
from musicgen_lora.runtime.allocator import keep_freed_memory


def enable(model: MusicgenForConditionalGeneration, precision: str) -> None:
    """Turns on the fast paths for the decoder's device. On a CPU the process keeps the memory that
    tensors free, and a decoder that computes in bf16 uses blocked attention. On every device the
    products of trained LoRA layers are fused.

    Args:
        model: changed in place.
        precision: in which its decoder computes, which may be lower than that of its weights.
    """
    if model.decoder.device.type == "cpu":
        keep_freed_memory()
        if precision == "bf16":
            use_blocked_attention(model)
    fuse_products(model)
