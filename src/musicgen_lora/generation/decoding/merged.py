"""The weights that a model plays with: those of its base, merged with an active adapter.

A decoder copies them once, so that an adapter costs nothing during decoding. The model itself stays
the same to the bit, with its adapter on or off as before.
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
    """The current weight `[out, in]` of a linear layer, in float32 unless it is plain.

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
        # Anything else (DoRA, quantised): its output for each unit input is a column.
        base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
        units = torch.eye(base.in_features, device=base.weight.device)
        dtype = base.weight.dtype if base.weight.dtype.is_floating_point else torch.float32
        weight, bias = layer(units.to(dtype)).float().T, base.bias
        nothing = layer(torch.zeros(1, base.in_features, device=units.device, dtype=dtype))
        bias = nothing if bool(nothing.any()) else bias
    if bias is not None:
        raise UserError(
            "The model or its adapter has a bias (lora_bias), but MusicGen's layers have none; "
            "train the adapter without it."
        )
    return weight.detach()


def merged_table(layer: nn.Module) -> torch.Tensor:
    """The current table of an embedding layer, `[V, D]`."""
    base: Any = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    if base is layer:
        return base.weight.detach()
    return layer(torch.arange(base.num_embeddings, device=base.weight.device)).detach()


def norm_weights(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The current weight, bias and epsilon of a normalisation layer.

    Raises:
        UserError: an adapter has replaced it with something else.
    """
    # PEFT keeps a trained copy beside the original, and returns the active one.
    plain: Any = getattr(layer, "original_module", layer)
    if type(plain) is not nn.LayerNorm:
        raise UserError(
            f"The adapter turns a normalisation layer into a {type(layer).__name__}, which can't "
            "be played; train it on linear layers and embeddings only."
        )
    one: Any = layer
    return one.weight.detach(), one.bias.detach(), plain.eps


def _is_plain_lora(layer: Any) -> bool:
    """Whether it is an active, unmerged LoRA on a plain linear layer."""
    return (
        isinstance(layer, LoraLinear)
        and type(layer.base_layer) is nn.Linear
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and not layer.disable_adapters
        and not layer.merged
    )
