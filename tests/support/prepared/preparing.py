"""A folder that is prepared, edited and prepared again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from made_datasets import RATE, read_metadata, write_metadata

from musicgen_lora.config import PrepareSettings
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.prepare.prepare import prepare_dataset

Entries = list[dict[str, Any]]


def put(path: Path, waveform: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, RATE)
    return path


def noise(seed: int, seconds: float) -> np.ndarray:
    """Without a tempo, so it is cut into equal windows."""
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, (1, round(seconds * RATE)))
    return samples.astype(np.float32)


def prepared(source: Path, out: Path, **changes: Any) -> Entries:
    values = {"num_workers": 0, "caption_variants": 1} | changes
    prepare_dataset(PrepareSettings(input_dir=source, output_dir=out, **values))
    return read_metadata(out)


def edit(out: Path, audio: str, **fields: Any) -> None:
    """Edits an entry as a user would in an editor."""
    entries = read_metadata(out)
    (entry,) = [entry for entry in entries if entry["audio"] == audio]
    entry.update(fields)
    write_metadata(out, entries)


def trained_on(out: Path) -> list[str]:
    """Sources of the clips that training would use."""
    return sorted(clip.source for clip in load_dataset(out))


def changes(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))["changes"]


def told(out: Path, words: str) -> list[str]:
    """The names that the report lists for a change."""
    (change,) = [change for change in changes(out) if words in change["told"]]
    return change["names"]


def read_report(output_dir: Path) -> dict[str, Any]:
    return json.loads((output_dir / "report.json").read_text(encoding="utf-8"))
