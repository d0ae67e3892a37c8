"""Pictures of sounds, drawn when a browser asks for them, two at a time, and kept for a while."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Literal

from musicgen_lora.audio import pictures
from musicgen_lora.audio.files import read_audio
from musicgen_lora.errors import AudioError

Picture = Literal["wave", "spectrum"]
PICTURES: dict[Picture, str] = {"wave": "Waveform", "spectrum": "Spectrogram"}
"""What can be drawn of a sound, and what it is called."""
MAX_S = 60.0
"""Longest part of a sound that is drawn."""
KEPT = 256
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
"""Drawn where a sound can't be read: a missing picture is no fault of the page."""
_at_once = threading.BoundedSemaphore(2)
"""Pictures drawn at once: each takes tens of megabytes, and a request a thread."""


def picture(path: Path, kind: Picture) -> tuple[bytes, str]:
    """A picture of a sound's first minute.

    Returns:
        Its bytes and their media type.
    """
    state = path.stat()
    return _drawn(path, state.st_mtime_ns, state.st_size, kind)


@lru_cache(maxsize=KEPT)
def _drawn(path: Path, at: int, size: int, kind: Picture) -> tuple[bytes, str]:
    with _at_once:
        try:
            waveform = read_audio(path, pictures.PICTURE_RATE, duration_s=MAX_S)
        except AudioError:
            return EMPTY.encode(), "image/svg+xml"
        if kind == "spectrum":
            return pictures.mel_spectrogram_png(waveform, pictures.PICTURE_RATE), "image/png"
        drawn = pictures.waveform_svg(waveform)
        plain = '<svg xmlns="http://www.w3.org/2000/svg" fill="#f97316" '
        return drawn.replace("<svg ", plain, 1).encode(), "image/svg+xml"
