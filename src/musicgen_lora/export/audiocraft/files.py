"""Reads and writes audiocraft's two files, which are pickles, safely.

audiocraft reads with `torch.load`, which takes nothing else. The files written here contain only
dictionaries, strings and tensors, all that torch's restricted unpickler accepts; reading uses it as
well, on uncompressed files only, so that a small file cannot expand in memory.
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
"""Most characters of a configuration."""
VERSION = "1.3.0"
"""Version of audiocraft whose format this is."""
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
    """The contents of one of the files.

    Raises:
        UserError: missing, not a torch file, or with more in it than tensors and strings.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; audiocraft exports {LM_FILE} and {CODEC_FILE}.")
    try:
        with zipfile.ZipFile(path) as parts:
            listed = parts.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{path}: is not in the format of torch 1.6 or later ({error}); load it where it was "
            "made and save it again."
        ) from error
    if any(part.compress_type != zipfile.ZIP_STORED for part in listed):
        raise UserError(f"{path}: is compressed, unlike torch's own files; save it with torch.")
    if sum(part.file_size for part in listed) > path.stat().st_size:
        raise UserError(f"{path}: is damaged: its parts are larger than the file; copy it again.")
    try:
        package = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        line = first_line(error)[:200]
        raise UserError(
            f"{path}: has more in it than tensors and text, or is damaged ({line}); export it with "
            "audiocraft.utils.export.export_lm and export_encodec."
        ) from error
    if not isinstance(package, dict):
        raise UserError(f"{path}: contains a {type(package).__name__} instead of a dictionary.")
    return package


def state_of(package: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights of a file: plain contiguous tensors.

    Raises:
        UserError: there are none, or one of them is something else.
    """
    state = package.get("best_state")
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        # A training checkpoint of a solver.
        state = state["model"]
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path}: has no best_state.")
    for name, tensor in state.items():
        if not isinstance(name, str) or type(tensor) is not Tensor:
            raise UserError(f"{path}: {str(name)[:100]} is not a tensor.")
        if tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
            raise UserError(f"{path}: {name[:100]} has type {tensor.dtype}, not a float type.")
        if not tensor.is_contiguous():
            raise UserError(f"{path}: {name[:100]} is a view of another tensor; save it as a copy.")
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{path}: {name[:100]} has values that are not finite.")
    # Tied weights are stored once.
    if sum(tensor.nbytes for tensor in state.values()) > 2 * path.stat().st_size:
        raise UserError(f"{path}: its tensors share memory; save copies of them.")
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
        raise UserError(f"{path}: its xp.cfg is not text, or too long.")
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: its xp.cfg is not valid YAML: {line}.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: its xp.cfg has no settings.")
    return config
