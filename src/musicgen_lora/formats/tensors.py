"""Tensors from safetensors files only; anything else under such a name is refused unread."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from musicgen_lora.errors import UserError

Shapes = dict[str, tuple[int, ...]]
"""Shapes of tensors by name."""


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        UserError: it is missing, damaged, or something else (such as a pickle).
    """
    _check_is_file(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}); copy it again.") from error


def read_shapes(path: Path) -> Shapes:
    """The shapes in the header of a safetensors file, read without its tensors.

    Raises:
        UserError: it is missing, damaged, or something else.
    """
    _check_is_file(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}); copy it again.") from error


def _check_is_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is not a regular file.")
