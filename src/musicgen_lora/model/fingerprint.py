"""The identity of a module's weights: how an adapter knows its base, and tokens their codec."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn
from transformers import MusicgenForConditionalGeneration


def fingerprint(module: nn.Module, further: Sequence[object] = ()) -> str:
    """The identity of a module's weights: a hex digest of names, shapes and about 4,096 evenly
    spaced values of each tensor, so that a model of gigabytes takes a second.

    Adapter weights (PEFT's `lora_` tensors) and the names of PEFT's wrappers are left out, so that
    a base has the same fingerprint with and without an adapter on it.
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
    """The identity of the language model that an adapter belongs to."""
    return fingerprint(model.decoder)
