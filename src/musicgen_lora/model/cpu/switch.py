"""The one switch for what makes a model quick: blocked attention, fused LoRA products, allocator.

None of it changes what the model computes, up to rounding. It may be turned on before an adapter is
added or after, and again after the model was moved.
"""

from __future__ import annotations

from transformers import MusicgenForConditionalGeneration

from musicgen_lora.model.cpu.allocator import keep_freed_memory
from musicgen_lora.model.cpu.attention import use_blocks
from musicgen_lora.model.cpu.lora_linear import fuse_products


def enable(model: MusicgenForConditionalGeneration, precision: str) -> None:
    """Turns on what is quicker where the decoder lies now: on a CPU the process keeps the memory
    that tensors free, and a decoder that computes in bf16 attends in blocks. On any device the
    products of LoRA layers that are trained are fused.

    Args:
        model: changed in place.
        precision: that its decoder computes in, which may be less than its weights are held in.
    """
    if model.decoder.device.type == "cpu":
        keep_freed_memory()
        if precision == "bf16":
            use_blocks(model)
    fuse_products(model)
