"""Small datasets of real audio for tests: clips of recorded TR-808 beats, a second or two long."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lora.audio.files import write_wav
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.config import TrainSettings

KIT = Path(__file__).resolve().parents[2] / "src" / "musicgen_lora" / "assets" / "kit808"
RATE = 32_000
TIMED = {"elapsed_s", "audio_s_per_s", "tokens_per_s", "peak_memory_bytes"}
"""Figures of a row that no two runs share."""
CAPTIONS = ["hip hop 808 beat", "trap beat with bass", "dark trap drums", "sparse 808 pattern"]


def beat(index: int, duration_s: float = 4.0) -> np.ndarray:
    """A beat `[C, N]` at 32 kHz, cut to `duration_s`."""
    return _rendered(index, max(4.0, duration_s))[:, : round(duration_s * RATE)].copy()


@functools.lru_cache(maxsize=64)
def _rendered(index: int, duration_s: float) -> np.ndarray:
    return render_beat(make_beat((0, index), duration_s=duration_s), RATE, seed=index)


def sine(frequency_hz: float, duration_s: float, sample_rate: int, level: float = 0.5):
    """`[1, N]` float32."""
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    return (level * np.sin(2.0 * math.pi * frequency_hz * time_s)).astype(np.float32)[None]


def make_dataset(folder: Path, durations_s: list[float]) -> Path:
    """A dataset with a beat of each duration, each of a source of its own."""
    entries: list[dict[str, Any]] = []
    for index, duration_s in enumerate(durations_s):
        write_wav(folder / "train" / f"beat{index}.wav", beat(index, duration_s), RATE)
        entries.append({"audio": f"train/beat{index}.wav", "text": CAPTIONS[index % 4]})
    write_metadata(folder, entries)
    return folder


def read_metadata(folder: Path) -> list[dict[str, Any]]:
    """The entries of a dataset."""
    return json.loads((folder / "metadata.json").read_text(encoding="utf-8"))


def write_metadata(folder: Path, entries: Any) -> Path:
    """Writes whatever is given as a dataset's metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metadata.json"
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return path


def tiny_settings(model: Path, data_dir: Path, output_dir: Path, **changes: Any) -> TrainSettings:
    """Settings of a short training on a random tiny base."""
    values: dict[str, Any] = {
        "model_path": str(model),
        "data_dir": data_dir,
        "output_dir": output_dir,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 3e-3,
        "allow_random_base": True,
        "precision": "fp32",
        "previews": "off",
    }
    return TrainSettings(**(values | changes))


def read_rows(output_dir: Path, event: str | None = None) -> list[dict[str, Any]]:
    """Lines of a run's metrics, of one kind if it is named."""
    lines = (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if event in (None, row["event"])]


def timeless(output_dir: Path) -> list[dict[str, Any]]:
    """Lines of a run's metrics, without the figures that no two runs share."""
    return [
        {name: value for name, value in row.items() if name not in TIMED}
        for row in read_rows(output_dir)
    ]


def files_below(folder: Path) -> dict[str, bytes]:
    """Contents of all files of a folder, but for its lock."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }
