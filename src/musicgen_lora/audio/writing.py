"""Sound files as other programs expect them: level, format, embedded tempo and key, file names.

Peaks beyond full scale are scaled down, never clipped. The same samples and facts give the same
file, byte for byte, so that writing it again changes nothing.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape as glob_escape
from pathlib import Path

import numpy as np
import soundfile

from musicgen_lora.audio.chunks import (
    BEATS_PER_BAR,
    acid_chunk,
    bext_chunk,
    info_chunk,
    smpl_chunk,
    with_chunks,
)
from musicgen_lora.audio.loudness import integrated_loudness
from musicgen_lora.audio.tags import id3_tag, tag_flac, tag_ogg
from musicgen_lora.config.kinds import SoundFormat as Format
from musicgen_lora.errors import UserError

CEILING_DB = -0.1
CEILING = 10.0 ** (CEILING_DB / 20.0)
"""Highest peak that is written or played, as an amplitude."""
LOSSY_LEVEL = 0.1
"""On libsndfile's scale, where 0 is the best quality."""
LOSSY_TRIES = 4
"""A quieter file is encoded a little differently; it fits at the second or third try."""
NAME_WORDS = 3
SMALL_WORDS = {"a", "an", "and", "at", "by", "for", "in", "of", "on", "the", "to", "with", "bpm"}


@dataclass(frozen=True)
class _Kind:
    """libsndfile's names for a format, and its file extension."""

    container: str
    subtype: str
    suffix: str
    is_lossy: bool = False


FORMATS: Mapping[Format, _Kind] = {
    "wav": _Kind("WAV", "PCM_16", ".wav"),
    "wav24": _Kind("WAV", "PCM_24", ".wav"),
    "wav_float": _Kind("WAV", "FLOAT", ".wav"),
    "flac": _Kind("FLAC", "PCM_24", ".flac"),
    "ogg": _Kind("OGG", "VORBIS", ".ogg", is_lossy=True),
    "mp3": _Kind("MP3", "MPEG_LAYER_III", ".mp3", is_lossy=True),
}


@dataclass(frozen=True)
class SoundFacts:
    """What a file says about its sound.

    Args:
        title: a few words, such as the prompt.
        comment: how it was made.
        bpm: quarter notes per minute; None if it has no tempo to state.
        key: as players write it, such as "C#m"; "" for none.
        root_pitch_class: of the key, 0 (C) to 11 (B).
        n_bars: length of a loop in bars of 4/4; None if it isn't a loop.
    """

    title: str
    comment: str
    software: str
    bpm: float | None = None
    key: str = ""
    root_pitch_class: int | None = None
    n_bars: int | None = None


def check_format(name: Format, sample_rate: int) -> None:
    """Raises a UserError if libsndfile can't write a format at a sample rate."""
    kind = FORMATS[name]
    there = soundfile.available_formats()
    if kind.container not in there:
        known = [other for other, its in FORMATS.items() if its.container in there]
        raise UserError(
            f"--format {name}: the libsndfile here ({soundfile.__libsndfile_version__}) can't "
            f"write it; choose one of {', '.join(known)}."
        )
    try:
        _encoded(np.zeros((1, 1), dtype=np.float32), sample_rate, kind)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise UserError(
            f"--format {name}: can't hold {sample_rate} Hz ({error}); use wav or flac."
        ) from error


def sound_bytes(
    waveform: np.ndarray,
    sample_rate: int,
    kind: Format = "wav",
    facts: SoundFacts | None = None,
    *,
    ceiling_db: float = CEILING_DB,
) -> bytes:
    """`[C, N]` as the bytes of a file, turned down if its peaks exceed the ceiling; see `levelled`
    for the gain."""
    samples, _ = levelled(waveform, sample_rate, ceiling_db=ceiling_db)
    content, _ = _fitting(samples, sample_rate, FORMATS[kind])
    if facts is None:
        return content
    if kind == "flac":
        return tag_flac(content, _vorbis_texts(facts), facts.software)
    if kind == "ogg":
        return tag_ogg(content, _vorbis_texts(facts), facts.software)
    if kind == "mp3":
        return id3_tag(_id3_texts(facts)) + content
    return with_chunks(content, _wav_chunks(facts, waveform.shape[1], sample_rate))


def levelled(
    waveform: np.ndarray,
    sample_rate: int,
    target_lufs: float | None = None,
    *,
    ceiling_db: float = CEILING_DB,
    kind: Format = "wav",
) -> tuple[np.ndarray, float]:
    """Brings `[C, N]` to a loudness as far as its peaks allow, and below a ceiling in any case; in
    a lossy format also below what its decoder can play.

    Returns:
        The waveform, and the gain in dB that was applied.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    room_db = ceiling_db - 20.0 * math.log10(peak) if peak > 0.0 else 0.0
    wanted_db = 0.0
    if target_lufs is not None:
        loudness = integrated_loudness(waveform, sample_rate)
        wanted_db = target_lufs - loudness if math.isfinite(loudness) else 0.0
    gain_db = min(wanted_db, room_db)
    found = _amplified(waveform, gain_db)
    if not FORMATS[kind].is_lossy:
        return found, gain_db
    _, fall_db = _fitting(found, sample_rate, FORMATS[kind])
    return _amplified(found, fall_db), gain_db + fall_db


def _amplified(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    if gain_db == 0.0:
        return waveform
    return (waveform * np.float32(10.0 ** (gain_db / 20.0))).astype(np.float32)


def _fitting(waveform: np.ndarray, sample_rate: int, kind: _Kind) -> tuple[bytes, float]:
    """A file of `[C, N]`, and the gain in dB with which its decoder stays within full scale: what
    lossy formats leave out can raise peaks by some decibels, which players would clip."""
    content, gain_db = _encoded(waveform, sample_rate, kind), 0.0
    for _ in range(LOSSY_TRIES if kind.is_lossy else 0):
        decoded, _ = soundfile.read(io.BytesIO(content), dtype="float32")
        peak = float(np.abs(decoded).max(initial=0.0))
        if peak <= 1.0:
            break
        gain_db += CEILING_DB - 20.0 * math.log10(peak)
        content = _encoded(_amplified(waveform, gain_db), sample_rate, kind)
    return content, gain_db


def _steps(waveform: np.ndarray, subtype: str) -> np.ndarray:
    """Samples as integers for formats that have them, so that audio read from such a file is
    written back unchanged: libsndfile multiplies by one step less than it divides by."""
    bits = {"PCM_16": 16, "PCM_24": 24}.get(subtype)
    if bits is None:
        return waveform
    most = 2.0 ** (bits - 1)
    steps = np.clip(np.rint(waveform.astype(np.float64) * most), -most, most - 1.0)
    return steps.astype(np.int16) if bits == 16 else steps.astype(np.int32) << 8


def _encoded(waveform: np.ndarray, sample_rate: int, kind: _Kind) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        _steps(waveform, kind.subtype).T,
        sample_rate,
        format=kind.container,
        subtype=kind.subtype,
        compression_level=LOSSY_LEVEL if kind.is_lossy else None,
    )
    return buffer.getvalue()


def _wav_chunks(facts: SoundFacts, n_frames: int, sample_rate: int) -> list[tuple[bytes, bytes]]:
    texts = {"INAM": facts.title, "ICMT": facts.comment, "ISFT": facts.software}
    chunks = [
        bext_chunk(description=facts.comment, originator=facts.software),
        info_chunk(texts),
        (b"id3 ", id3_tag(_id3_texts(facts))),
    ]
    if facts.n_bars is None or facts.bpm is None:
        return chunks
    root = facts.root_pitch_class
    n_beats = BEATS_PER_BAR * facts.n_bars
    return [
        acid_chunk(bpm=facts.bpm, n_beats=n_beats, root_pitch_class=root),
        smpl_chunk(n_frames=n_frames, sample_rate=sample_rate, root_pitch_class=root),
        *chunks,
    ]


def _id3_texts(facts: SoundFacts) -> dict[str, str]:
    texts = {"TIT2": facts.title, "TSSE": facts.software, "COMM": facts.comment}
    return texts | _stated(facts, "TBPM", "TKEY")


def _vorbis_texts(facts: SoundFacts) -> dict[str, str]:
    texts = {"TITLE": facts.title, "ENCODER": facts.software, "COMMENT": facts.comment}
    return texts | _stated(facts, "BPM", "INITIALKEY")


def _stated(facts: SoundFacts, bpm_name: str, key_name: str) -> dict[str, str]:
    stated = {} if facts.bpm is None else {bpm_name: f"{facts.bpm:g}"}
    return stated | ({key_name: facts.key} if facts.key else {})


def pack_name(words: str, *, bpm: float | None = None, key: str = "") -> str:
    """A name in the style of sample packs, without number and extension: `Dark_Trap_140bpm_C#min`.

    Args:
        words: a description; the first few that are plain letters are used, but no numbers, which
            hosts would read as a tempo.
        key: its short name, such as "C#min".
    """
    plain = [word for word in re.findall(r"[^\W\d_]+", words) if word.isascii()]
    taken = [word for word in plain if word.lower() not in SMALL_WORDS and len(word) > 1]
    parts = [word[:16].capitalize() for word in taken[:NAME_WORDS]] or ["Loop"]
    if bpm is not None:
        parts.append(f"{bpm:g}bpm")
    return "_".join([*parts, key] if key else parts)


def free_stem(folder: Path, name: str) -> str:
    """`name` with the first number, `_01` and so on, that no file in a folder has."""
    taken = {path.stem for path in folder.glob(f"{glob_escape(name)}_*")}
    number = 1
    while f"{name}_{number:02d}" in taken:
        number += 1
    return f"{name}_{number:02d}"
