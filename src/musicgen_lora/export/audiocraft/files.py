"""audiocraft's two files: pickles, so they are written here and read with care.

audiocraft reads with `torch.load`, which takes nothing else. What is written holds dictionaries,
texts and tensors alone, which is all that torch's own restricted reader takes; reading uses that
reader, on files whose parts are stored plainly, so that a small file cannot unfold in memory.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from musicgen_lora.errors import UserError, first_line

LM_FILE, CODEC_FILE = "state_dict.bin", "compression_state_dict.bin"
MAX_CONFIG = 1 << 20
"""Characters of a configuration."""
VERSION = "1.3.0"
"""Version of audiocraft whose form this is."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, EOFError, LookupError)


def write_state(path: Path, state: dict[str, Tensor], config: dict[str, Any]) -> None:
    package = {
        "best_state": {name: tensor.detach().contiguous() for name, tensor in state.items()},
        "xp.cfg": yaml.safe_dump(config, sort_keys=False),
        "version": VERSION,
        "exported": True,
    }
    torch.save(package, path)


def read_package(path: Path) -> dict[str, Any]:
    """What one of the files holds.

    Raises:
        UserError: missing, not of torch's form, or with more in it than tensors and texts.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; audiocraft's exports are {LM_FILE}, {CODEC_FILE}.")
    try:
        with zipfile.ZipFile(path) as parts:
            listed = parts.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{path}: is not of the form that torch saves since 1.6 ({error}); load it where it "
            "was made and save it again."
        ) from error
    if any(part.compress_type != zipfile.ZIP_STORED for part in listed):
        raise UserError(f"{path}: is compressed, which torch's own files are not.")
    if sum(part.file_size for part in listed) > path.stat().st_size:
        raise UserError(f"{path}: is damaged: its parts are larger than it.")
    try:
        package = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        line = first_line(error)[:200]
        raise UserError(
            f"{path}: holds more than tensors and text, or is damaged ({line}); export it with "
            "audiocraft.utils.export.export_lm and export_encodec."
        ) from error
    if not isinstance(package, dict):
        raise UserError(f"{path}: holds a {type(package).__name__}, and no dictionary.")
    return package


def state_of(package: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights of a file: plain tensors, in no other order than they lie in memory.

    Raises:
        UserError: there are none, or one of them is something else.
    """
    state = package.get("best_state")
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        # A solver's checkpoint.
        state = state["model"]
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path}: has no best_state.")
    for name, tensor in state.items():
        if not isinstance(name, str) or type(tensor) is not Tensor:
            raise UserError(f"{path}: {str(name)[:100]} is no tensor.")
        if tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
            raise UserError(f"{path}: {name[:100]} is of type {tensor.dtype}, not of floats.")
        if not tensor.is_contiguous():
            raise UserError(f"{path}: {name[:100]} is a view of other values; save it again.")
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{path}: {name[:100]} has values that are not finite.")
    # Tied weights are stored once.
    if sum(tensor.nbytes for tensor in state.values()) > 2 * path.stat().st_size:
        raise UserError(f"{path}: its tensors share their values; save it again.")
    return state


def config_of(package: dict[str, Any], path: Path) -> dict[str, Any]:
    """The configuration of a file.

    Raises:
        UserError: there is none, or it can't be read.
    """
    text = package.get("xp.cfg")
    if isinstance(text, dict):
        return text
    if not isinstance(text, str) or len(text) > MAX_CONFIG:
        raise UserError(f"{path}: its xp.cfg is no text of a usable length.")
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: its xp.cfg is no YAML: {line}.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: its xp.cfg says nothing.")
    return config
