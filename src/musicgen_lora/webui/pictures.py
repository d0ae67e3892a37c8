"""Pictures of sounds, and exports of them for other programs: made on request, two at a time, and
cached for a while."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Literal

from musicgen_lora.audio import pictures
from musicgen_lora.audio.files import read_audio
from musicgen_lora.errors import AudioError
from musicgen_lora.generation.clips.beside import Ending, made_beside

Picture = Literal["wave", "spectrum"]
PICTURES: dict[Picture, str] = {"wave": "Waveform", "spectrum": "Spectrogram"}
"""The pictures of a sound, and what each is called."""
Beside = Literal["midi", "spectrogram"]
BESIDE: dict[Beside, tuple[Ending, str]] = {
    "midi": (".mid", "audio/midi"),
    "spectrogram": (".png", "image/png"),
}
"""The exports of a generated clip: file suffix and media type of each."""
MAX_S = 60.0
"""The longest part of a sound that is drawn, in seconds."""
KEPT, KEPT_BESIDE = 256, 32
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
"""Drawn if a sound can't be read: a missing picture is not an error of the page."""
_at_once = threading.BoundedSemaphore(2)
"""Limits what is made at once: each takes tens of megabytes, and each request has a thread."""


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


def beside(path: Path, kind: Beside) -> tuple[bytes, str]:
    """An export of a generated clip.

    Returns:
        Its bytes and their media type.

    Raises:
        AudioError: the clip can't be read.
    """
    state = path.stat()
    return _made(path, state.st_mtime_ns, state.st_size, kind)


@lru_cache(maxsize=KEPT_BESIDE)
def _made(path: Path, at: int, size: int, kind: Beside) -> tuple[bytes, str]:
    ending, media = BESIDE[kind]
    with _at_once:
        return made_beside(path, ending), media
