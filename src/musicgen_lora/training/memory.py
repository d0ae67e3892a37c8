"""Memory of a training: its peak, and gradient checkpointing to reduce it."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import MusicgenForConditionalGeneration


def checkpoint_layers(model: MusicgenForConditionalGeneration) -> None:
    """Keeps only the input of each decoder layer for the backward pass, which recomputes the rest.

    transformers' own switch requires training mode, which would turn on the decoder's dropout.
    """
    layers: Any = model.decoder.model.decoder.layers
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Any, *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of the device's tensors; on a CPU, of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        # Windows lacks `resource`. psutil comes with accelerate.
        import psutil

        memory: Any = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
