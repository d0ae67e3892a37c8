"""Reads an adapter's folder, once, and puts the adapter on its base.

The folder holds what PEFT writes (`adapter_config.json`, `adapter_model.safetensors`), so that
plain PEFT and transformers can load it, plus `musicgen_lora.json` (`lora.facts`) and a model card.
Adapters made by other tools lack the last two.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from musicgen_lora.atomic import MANIFEST
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import AN_OBJECT, LARGE, parse_json, read_bytes, read_json
from musicgen_lora.formats.kinds import check_kind, named, text
from musicgen_lora.given import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_folder
from musicgen_lora.model.base.loading import UNLOADABLE
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.config import read_adapter_config
from musicgen_lora.model.lora.facts import FACTS_FILE, AdapterFacts
from musicgen_lora.runtime.quiet import quiet_libraries

MAX_BYTES = {ADAPTER_CONFIG: 16 << 20, ADAPTER_WEIGHTS: 32 << 30, FACTS_FILE: LARGE}
"""Largest size of an adapter's files."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types of weights. Integers and 8-bit floats are quantised ones, by scales that aren't there."""


@dataclass(frozen=True)
class AdapterFiles:
    """A snapshot of an adapter: each file is read once, and nothing is read again.

    Args:
        tensors: the weights, by the names under which PEFT saves them.
        facts: ours; None for an adapter made by another tool.
        sha256: of the bytes of `adapter_config.json` and `adapter_model.safetensors`, by name.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    facts: AdapterFacts | None
    sha256: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Identity of all that decides its sound: scale, layers and kind as well as weights."""
        content = json.dumps(dict(self.sha256), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_adapter(folder: Path) -> AdapterFiles:
    """Reads an adapter and checks that it is complete. If a running training replaces it meanwhile,
    the new one is read.

    Raises:
        UserError: no adapter there, a damaged one, or one that doesn't match its manifest.
    """
    while True:
        before = _identity(folder)
        try:
            return _read_adapter(folder)
        except UserError:
            if _identity(folder) == before:
                raise


def _identity(folder: Path) -> tuple[int, int] | None:
    """What changes when a folder is replaced by another; None if there is none."""
    try:
        state = folder.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _read_adapter(folder: Path) -> AdapterFiles:
    check_adapter_folder(folder)
    present = [
        name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, FACTS_FILE) if (folder / name).is_file()
    ]
    contents = {name: read_bytes(folder / name, MAX_BYTES[name]) for name in present}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    _check_manifest(folder, digests)
    facts = None
    if FACTS_FILE in present:
        facts = AdapterFacts.parse(contents[FACTS_FILE], folder / FACTS_FILE)
    config = parse_json(contents[ADAPTER_CONFIG], folder / ADAPTER_CONFIG)
    check_kind(config, AN_OBJECT, folder / ADAPTER_CONFIG)
    try:
        tensors = load(contents[ADAPTER_WEIGHTS])
    except (SafetensorError, ValueError) as error:
        raise UserError(
            f"{folder / ADAPTER_WEIGHTS}: not readable as safetensors ({error}); copy it again."
        ) from error
    digests.pop(FACTS_FILE, None)
    return AdapterFiles(folder, config, tensors, facts, digests)


def _check_manifest(folder: Path, digests: Mapping[str, str]) -> None:
    """Compares what was read with the manifest that training wrote beside it, if any."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    manifest = read_json(path, named(text()))
    altered = [name for name, digest in digests.items() if manifest.get(name) != digest]
    if altered:
        raise UserError(
            f"{folder / altered[0]}: not what training wrote (its hash differs from {MANIFEST}); "
            f"copy the adapter again or, if you changed it yourself, delete {path}."
        )


def _of_another_base(folder: Path, facts: AdapterFacts, base: BaseModel) -> UserError:
    if facts.base_path == base.path:
        return UserError(
            f"{folder}: this adapter was trained on another version of {base.path} (fingerprint "
            f"{facts.base_fingerprint}, now {base.fingerprint}); train it again on this one, or "
            "use the version that it was trained on."
        )
    return UserError(
        f"{folder}: this adapter was trained on another base ({facts.base_path}, fingerprint "
        f"{facts.base_fingerprint}); use that one as the base model."
    )


@quiet_libraries()
def load_adapter(base: BaseModel, adapter: Path | AdapterFiles) -> PeftModel:
    """Puts a trained adapter on its base, frozen and in eval mode.

    Args:
        base: changed in place.
        adapter: its folder, or what was read from it.

    Raises:
        UserError: no adapter there, a damaged one, or one made for another base.
    """
    files = read_adapter(adapter) if isinstance(adapter, Path) else adapter
    folder, facts = files.folder, files.facts
    if facts is not None and facts.base_fingerprint != base.fingerprint:
        raise _of_another_base(folder, facts, base)
    modules = [name for name, _ in base.hf.named_modules()]
    shapes = {name: tuple(tensor.shape) for name, tensor in files.tensors.items()}
    config = read_adapter_config(folder / ADAPTER_CONFIG, files.config, modules, shapes)
    for name, tensor in files.tensors.items():
        if tensor.dtype not in _DTYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{folder / ADAPTER_WEIGHTS}: {name} has type {kind}, whose scale isn't saved with "
                "it; save the adapter in float32, float16 or bfloat16."
            )
        if not bool(tensor.isfinite().all()):
            raise UserError(
                f"{folder}: {name} has values that are not finite; train the adapter again."
            )
    try:
        config.inference_mode = True
        adapted = PeftModel(base.hf, config)  # pyright: ignore[reportArgumentType]
        loaded = set_peft_model_state_dict(adapted, dict(files.tensors))
    except UNLOADABLE as error:
        line = re.sub(r"\s+", " ", str(error))[:200]
        raise UserError(f"{folder}: does not fit this base model: {line}") from error
    _check_all_fit(files, adapted, loaded)
    return adapted.eval()


def _check_all_fit(files: AdapterFiles, adapted: PeftModel, loaded: Any) -> None:
    """Raises a UserError for tensors that fit no layer, which PEFT drops, and for layers without
    tensors, which PEFT leaves at their initial values."""
    if loaded.unexpected_keys:
        names = [key.replace(".default", "") for key in sorted(loaded.unexpected_keys)]
        raise UserError(
            f"{files.folder / ADAPTER_WEIGHTS}: {len(names)} of {len(files.tensors)} tensors of "
            f"the adapter {'fit' if len(names) != 1 else 'fits'} no layer ({_first(names)}): "
            f"weights and {ADAPTER_CONFIG} do not "
            "belong together, or another tool named them."
        )
    expected = {name for name, _ in adapted.named_parameters() if ".default" in name}
    lacking = [key.replace(".default", "") for key in sorted(expected & set(loaded.missing_keys))]
    if lacking:
        raise UserError(
            f"{files.folder / ADAPTER_WEIGHTS}: {len(lacking)} of {len(expected)} tensors that "
            f"{ADAPTER_CONFIG} asks for {'is' if len(lacking) == 1 else 'are'} missing "
            f"({_first(lacking)}): the two do not belong "
            "together."
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
