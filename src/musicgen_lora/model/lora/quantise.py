"""A frozen base in 8 or 4 bits (QLoRA, Dettmers et al., 2023), with bitsandbytes, an extra.

Only the linear layers of the decoder's blocks are quantised, which are most of a MusicGen. The
adapter on them stays in fp32 and is saved for the plain base.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.errors import UserError


def check_quantise(quantise: str, *, adapter: str, device: torch.device) -> None:
    """Raises a UserError if a device can't train an adapter of this kind on a quantised base.

    Args:
        quantise: "none", "8bit" or "4bit".
    """
    if (quantise, adapter, device.type) == ("8bit", "dora", "cpu"):
        # On a CPU, PEFT loses the scales of an 8-bit weight after reading it.
        raise UserError(
            "quantise 8bit with adapter dora needs a GPU; on a CPU use quantise 4bit, or another "
            "adapter."
        )


def quantise_decoder(
    model: MusicgenForConditionalGeneration,
    quantise: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Replaces the linear layers of the decoder's blocks by quantised ones, in place.

    They are moved to `device` one at a time, so it never holds the whole model unquantised.

    Args:
        model: in float32 on the CPU, without an adapter; the rest of it stays there.
        quantise: "8bit" (LLM.int8) or "4bit" (NF4 with double quantisation).
        dtype: in which 4-bit weights are multiplied.
    """
    bnb: Any = importlib.import_module("bitsandbytes")
    blocks: Any = model.decoder.model.decoder.layers
    for parent in list(blocks.modules()):
        for name, linear in list(parent.named_children()):
            if not isinstance(linear, nn.Linear):
                continue
            shape = (linear.in_features, linear.out_features, linear.bias is not None)
            if quantise == "8bit":
                layer = bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False)
            else:
                layer = bnb.nn.Linear4bit(
                    *shape, compute_dtype=dtype, compress_statistics=True, quant_type="nf4"
                )
            layer.load_state_dict(linear.state_dict())
            setattr(parent, name, layer.requires_grad_(False).to(device))
    # PEFT looks for this flag, which transformers would set.
    setattr(model, f"is_loaded_in_{quantise}", True)
