"""Melodies for melody models, extracted from exactly the window whose codes are trained on.

A melody is computed when its window is drawn and isn't cached: that takes milliseconds, and chroma
frames don't align with codec frames, so a whole clip's melody could not be cut to a window.
"""

from __future__ import annotations

import numpy as np

from musicgen_lora.audio.files import read_audio
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.chroma import Chroma


class Melodies:
    """Computes the melodies of windows of clips."""

    def __init__(self, chroma: Chroma, frame_rate: float) -> None:
        self._chroma, self._frame_rate = chroma, frame_rate

    def window(self, clip: Clip, start: int, n_frames: int) -> np.ndarray:
        """Pitch classes `[M]` uint8 of a clip's codec frames `start` to `start + n_frames`.

        Raises:
            AudioError: the file cannot be read.
        """
        offset_s, duration_s = start / self._frame_rate, n_frames / self._frame_rate
        if clip.duration_s is not None:
            # The last codec frame may reach beyond the clip.
            duration_s = min(duration_s, clip.duration_s - offset_s)
        return self._chroma(
            read_audio(
                clip.path,
                self._chroma.sample_rate,
                start_s=clip.start_s + offset_s,
                duration_s=duration_s,
            )
        )


def open_melodies(model: BaseModel) -> Melodies | None:
    """The melodies for a model; None if it takes no melody."""
    chroma = model.chroma
    return None if chroma is None else Melodies(chroma, model.shape.frame_rate)
