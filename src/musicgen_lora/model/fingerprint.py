"""The identity of a module's weights: how an adapter knows its base, and tokens their codec."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn
from transformers import MusicgenForConditionalGeneration


def fingerprint(module: nn.Module, further: Sequence[object] = ()) -> str:
    """Identity of a module's weights: hex digest over names, shapes and up to 4,096 evenly
    spaced values of each tensor, so that a model of gigabytes is told apart in a second.

    Adapter weights (PEFT's `lora_` tensors) are left out and wrappers' names folded, so that a
    base has the same fingerprint with and without an adapter on it.
    """
    digest = hashlib.sha256(repr(list(further)).encode())
    tensors = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in module.state_dict().items()
        if "lora_" not in name
    }
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().reshape(-1)
        stride = max(1, flat.numel() // 4096)
        sample = flat[::stride].to(device="cpu", dtype=torch.float32)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def base_fingerprint(model: MusicgenForConditionalGeneration) -> str:
    """Identity of the language model that an adapter belongs to."""
    return fingerprint(model.decoder)
