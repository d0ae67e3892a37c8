"""A checkpoint in Hugging Face's format: a base's own files with some weights replaced.

The base's files are copied rather than rewritten from a loaded model: config, facts and tokenizer
stay as their author made them, and unchanged weights keep their bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from musicgen_lora.atomic import json_bytes
from musicgen_lora.errors import RunError
from musicgen_lora.formats.documents import LARGE, read_json
from musicgen_lora.formats.tensors import read_tensors
from musicgen_lora.model.base.folder import CONFIGS, INDEX, TOKENIZER, WEIGHTS


def weight_files(folder: Path) -> list[str]:
    """Names of a checked base's weights files."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    return sorted(set(read_json(folder / INDEX, max_bytes=LARGE)["weight_map"].values()))


def left_behind(folder: Path) -> list[str]:
    """Names of files in a base's folder that are not part of the checkpoint."""
    known = {"config.json", *CONFIGS, *TOKENIZER, INDEX, *weight_files(folder)}
    return sorted(
        path.name for path in folder.iterdir() if path.name not in known and path.name[0] != "."
    )


def copy_present(source: Path, folder: Path, names: Iterable[str]) -> None:
    """Copies those of the named files that the source has."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def copy_checkpoint(base: Path, folder: Path, changed: Mapping[str, Tensor]) -> None:
    """Copies a base with new values for some of its weights.

    Args:
        base: its folder, checked as `load_base` does.
        folder: exists and is empty.
        changed: float32, by their names in the files.

    Raises:
        RunError: the files have no such weight.
    """
    copy_present(base, folder, ("config.json", *CONFIGS, *TOKENIZER))
    placed: set[str] = set()
    for name in weight_files(base):
        with safe_open(base / name, "pt") as file:
            held, header = set(file.keys()), file.metadata()
        replaced = held & set(changed)
        placed |= replaced
        if replaced:
            tensors = read_tensors(base / name) | {key: changed[key] for key in replaced}
            # Only one entry, as safetensors writes several in random order.
            form = (header or {}).get("format", "pt")
            save_file(tensors, folder / name, metadata={"format": form})
        else:
            shutil.copyfile(base / name, folder / name)
    lost = sorted(set(changed) - placed)
    if lost:
        raise RunError(
            f"{base}: its files have no {lost[0]}; load the base with transformers, save it with "
            "save_pretrained, and merge into that."
        )
    if not (base / WEIGHTS).is_file():
        index: dict[str, Any] = read_json(base / INDEX, max_bytes=LARGE)
        total = sum(_tensor_bytes(folder / name) for name in weight_files(base))
        index["metadata"] |= {"total_size": total}
        (folder / INDEX).write_bytes(json_bytes(index))


def _tensor_bytes(path: Path) -> int:
    """Bytes of a safetensors file's tensors: all but its header, whose length comes first."""
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
    return path.stat().st_size - 8 - n_header
