"""Files made from a clip's sound to lie beside it: MIDI and spectrogram, at once or on demand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from musicgen_lora.audio.files import probe, read_audio
from musicgen_lora.dataset.caption_words import normalise_bpm
from musicgen_lora.generation.clips.written import read_facts
from musicgen_lora.listening.midi import midi_of
from musicgen_lora.listening.pitch.key_names import normalise_key
from musicgen_lora.listening.rhythm.tempo import estimate_tempo

PLAIN_BPM = 120.0
"""Tempo of the MIDI file's bars if the clip has no steady beat."""
Ending = Literal[".mid", ".png"]
"""Of the MIDI file and of the spectrogram."""


def clip_midi(
    waveform: np.ndarray, sample_rate: int, bpm: float | None, key: str | None
) -> tuple[bytes, float]:
    """Transcribe `[C, N]` to a MIDI file.

    Args:
        bpm: requested tempo; None measures it.
        key: requested key, as in "C# minor".

    Returns:
        The file, and the tempo of its bars.
    """
    if bpm is None:
        heard = estimate_tempo(waveform, sample_rate).bpm
        bpm = heard if np.isfinite(heard) else PLAIN_BPM
    return midi_of(waveform, sample_rate, bpm, key), bpm


def clip_picture(waveform: np.ndarray, sample_rate: int) -> bytes:
    """A spectrogram of `[C, N]`, as a PNG."""
    # Drawing libraries take a second to load; clips without a picture should not wait for them.
    from musicgen_lora.audio.pictures import mel_spectrogram_png

    return mel_spectrogram_png(waveform, sample_rate, is_large=True)


def made_beside(sound: Path, ending: Ending) -> bytes:
    """The file that the command would write beside a clip: the existing one if it is unaltered,
    otherwise a new one made from the clip's sound.

    Args:
        sound: file of the clip; its JSON may be missing.

    Raises:
        AudioError: the sound can't be read.
    """
    facts, path = read_facts(sound.with_suffix(".json")), sound.with_suffix(ending)
    hashes = facts.get("sha256")
    if isinstance(hashes, dict) and path.is_file() and not path.is_symlink():
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == hashes.get(ending):
            return content
    rate = probe(sound).sample_rate
    waveform = read_audio(sound, rate)
    if ending == ".png":
        return clip_picture(waveform, rate)
    bpm, key = normalise_bpm(facts.get("bpm")), normalise_key(facts.get("key"))
    return clip_midi(waveform, rate, bpm, key)[0]
