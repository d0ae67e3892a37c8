"""What fine-tuning cost: the loss on styles that the adapter was not made for.

An adapter that can only play 808 beats has forgotten what made its base useful. The clips are any
dataset of other music; the embedded base comes with held-out clips of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from musicgen_lora import atomic
from musicgen_lora.config import EMBEDDED_NAME, EvaluateSettings
from musicgen_lora.dataset.batches import Window
from musicgen_lora.dataset.encoding import encode_clips, encoders
from musicgen_lora.dataset.melodies import open_melodies
from musicgen_lora.dataset.metadata import Clip, load_dataset
from musicgen_lora.dataset.scoring import Windows
from musicgen_lora.dataset.tokens import find_codes
from musicgen_lora.evaluation.remarks import too_short
from musicgen_lora.model.base_model import BaseModel

BUNDLED = Path(str(files("musicgen_lora"))) / "assets" / "other_styles"
"""Two clips of each of tiny-beats' styles, made with kits and presets that it was not trained on,
and their codes from its codec."""
MAX_CLIPS = 64


def other_styles_folder(given: Path | None, base_path: str) -> Path | None:
    """The dataset to measure on: the given one, else the bundled one for the embedded base."""
    if given is not None:
        return given
    return BUNDLED if base_path == EMBEDDED_NAME else None


@dataclass(frozen=True)
class OtherMusic:
    """Windows of other music, or why there are none."""

    windows: Windows = ()
    why_none: str = ""
    left_out: str = ""
    """A sentence on clips that were too short; empty if there were none."""


def other_music(settings: EvaluateSettings, model: BaseModel, max_duration_s: float) -> OtherMusic:
    """The windows of the dataset to measure on.

    Raises:
        UserError: the dataset or one of its files cannot be used.
    """
    folder = other_styles_folder(settings.other_data_dir, settings.base_model_path)
    if folder is None:
        return OtherMusic(why_none="needs --other_data_dir, a dataset of other music")
    windows, short = other_style_windows(model, folder, max_duration_s)
    if not windows:
        return OtherMusic(why_none=f"every clip of {folder} is too short")
    shortest = model.delays.shortest
    return OtherMusic(windows, left_out=too_short(short, shortest, str(folder)) if short else "")


def other_style_windows(
    model: BaseModel, data_dir: Path, max_duration_s: float
) -> tuple[Windows, list[str]]:
    """The first `max_duration_s` of up to 64 evenly spaced clips of the dataset, and the names of
    those that are too short.

    Raises:
        UserError: the dataset or one of its files cannot be used.
    """
    clips = load_dataset(data_dir)
    shortest = model.delays.shortest
    n_frames = model.shape.frames(max_duration_s, shortest)
    chosen = clips[:: -(-len(clips) // MAX_CLIPS)]
    melodies = open_melodies(model)
    windows, short = [], []
    for one, clip in zip(_codes(chosen, model, data_dir), chosen, strict=True):
        if len(one) < shortest:
            short.append(clip.name)
            continue
        melody = None
        if melodies is not None:
            melody = melodies.window(clip, 0, min(n_frames, len(one)))
        windows.append(Window(one[:n_frames], clip.texts[0], clip.source, melody))
    return windows, short


def _codes(clips: Sequence[Clip], model: BaseModel, data_dir: Path) -> Sequence[np.ndarray]:
    """Codes `[T, K]` of clips. Clips without codes are encoded here and not saved as shards: we may
    not be allowed to write to the folder."""
    if data_dir == BUNDLED:
        ids = [atomic.sha256_file(clip.path) for clip in clips]
        kept, lacking = find_codes(data_dir / "tokens" / model.codec.fingerprint, ids)
        if not len(lacking):
            return kept
    with encoders(model) as pool:
        return [*pool.map(lambda clip: encode_clips([clip], model)[0], clips)]
