"""What a run records of itself: settings, data, versions, and the identity made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from musicgen_lora import __version__
from musicgen_lora.config import TrainSettings
from musicgen_lora.data.metadata import Clips

REPEATABLE = {
    "output_dir",
    "fsdp",
    "resume",
    "keep_checkpoints",
    "validate_every",
    "save_every",
    "early_stopping_patience",
    "preview_prompts",
    "preview_every",
    "preview_duration",
    "report_to",
}
"""Settings that may differ between a run and its resumption."""


def run_identity(settings: TrainSettings, base: str, clips: Clips, id_of: Mapping[str, str]) -> str:
    """Of a run: settings, base and data; equal ones give equal results."""
    plain = {name: v for name, v in plain_settings(settings).items() if name not in REPEATABLE}
    ids = [id_of[name] for name in clips.names()]
    data = list(zip(ids, *map(clips.column, ("texts", "source", "split")), strict=True))
    return hashlib.sha256(json.dumps([plain, base, data]).encode()).hexdigest()[:16]


def plain_settings(settings: TrainSettings) -> dict[str, Any]:
    """Settings as JSON has them."""
    values = dataclasses.asdict(settings)
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


def data_facts(
    settings: TrainSettings,
    clips: Clips,
    train_clips: Clips,
    held_out: Clips,
    id_of: Mapping[str, str],
) -> dict[str, Any]:
    """What a run used of its dataset, the held-out clips by name: evaluation finds them here."""
    entries = "\n".join(clips.column("entry"))
    return {
        "data_dir": str(settings.data_dir.resolve()),
        "metadata_file": settings.metadata_file,
        "fingerprint": hashlib.sha256(entries.encode()).hexdigest()[:16],
        "n_train": len(train_clips),
        "n_validation": len(held_out),
        "validation": [
            {
                "id": id_of[clip.name],
                "name": clip.name,
                "audio": clip.audio,
                "text": clip.texts[0],
                "source": clip.source,
            }
            for clip in held_out
        ],
    }


def library_versions() -> dict[str, str]:
    """Of everything that can change a result."""
    extras = {
        name: importlib.metadata.version(name)
        for name in ("bitsandbytes",)
        if importlib.util.find_spec(name) is not None
    }
    return {
        "musicgen_lora": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        **extras,
    }
