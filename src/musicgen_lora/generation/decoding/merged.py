"""The weights that a model plays with: those of its base, and of the adapter on it, if one is on.

A decoder takes them over once, so that an adapter costs nothing while it plays. They are copies:
the model itself stays as it was, to the bit, with its adapter on or off as before.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from musicgen_lora.errors import UserError
from musicgen_lora.model.lora.mixture import weight_change


def merged_weight(layer: nn.Module) -> torch.Tensor:
    """What a linear layer multiplies by now, `[out, in]`, in float32 unless it is plain.

    Args:
        layer: linear, quantised or not, with or without any kind of adapter.
    """
    weight: Any
    if type(layer) is nn.Linear:
        weight, bias = layer.weight, layer.bias
    elif _is_plain_lora(layer):
        base: Any = layer.base_layer
        adapter: Any = layer
        weight, bias = base.weight.double(), base.bias
        for name in adapter.active_adapters:
            if name in adapter.lora_A:
                weight = weight + weight_change(layer, name)
        weight = weight.float()
    else:
        # Whatever it is (DoRA, quantised): what it makes of each input alone is a column.
        base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
        units = torch.eye(base.in_features, device=base.weight.device)
        dtype = base.weight.dtype if base.weight.dtype.is_floating_point else torch.float32
        weight, bias = layer(units.to(dtype)).float().T, base.bias
        nothing = layer(torch.zeros(1, base.in_features, device=units.device, dtype=dtype))
        bias = nothing if bool(nothing.any()) else bias
    if bias is not None:
        raise UserError(
            "The model or its adapter (lora_bias) has a bias, which MusicGen's layers have not; it "
            "cannot be played: train the adapter without."
        )
    return weight.detach()


def merged_table(layer: nn.Module) -> torch.Tensor:
    """What an embedding layer looks up now, `[V, D]`."""
    base: Any = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    if base is layer:
        return base.weight.detach()
    return layer(torch.arange(base.num_embeddings, device=base.weight.device)).detach()


def norm_weights(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Weight, bias and epsilon of a normalisation as they are now.

    Raises:
        UserError: an adapter changes it in a way of its own.
    """
    # PEFT keeps a trained copy beside the original, and gives the one that is on.
    plain: Any = getattr(layer, "original_module", layer)
    if type(plain) is not nn.LayerNorm:
        raise UserError(
            f"The adapter makes a {type(layer).__name__} of a normalisation, which cannot be "
            "played; train it on linear layers and embeddings."
        )
    one: Any = layer
    return one.weight.detach(), one.bias.detach(), plain.eps


def _is_plain_lora(layer: Any) -> bool:
    """A LoRA on a plain linear layer that is switched on and has not been merged by others."""
    return (
        isinstance(layer, LoraLinear)
        and type(layer.base_layer) is nn.Linear
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and not layer.disable_adapters
        and not layer.merged
    )
