"""Memory of a training: how much it took, and layers that are computed twice to save it."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import MusicgenForConditionalGeneration


def checkpoint_layers(model: MusicgenForConditionalGeneration) -> None:
    """Keeps only the input of each decoder layer for the backward pass, which computes the rest
    again.

    transformers' own switch asks for training mode, which would turn on the decoder's dropout.
    """
    layers: Any = model.decoder.model.decoder.layers
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Any, *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)


def peak_memory_bytes(device: torch.device) -> int:
    """The most that the device's tensors have taken; on a CPU, the most that the process has."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        # Windows has none. accelerate brings this library.
        import psutil

        memory: Any = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
