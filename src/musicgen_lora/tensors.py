"""Tensors read from safetensors files alone; whatever else has their name is refused unread."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from musicgen_lora.errors import UserError


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        UserError: it is missing, damaged, or something else (a pickle, for one).
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}).") from error
