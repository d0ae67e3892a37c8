"""Reading and writing audio files, bounded: a lying header or a bomb costs time, not memory.

Formats are soundfile's (WAV, FLAC, MP3, OGG Vorbis, Opus, AIFF); resampling is soxr's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from musicgen_lora.atomic import write_file
from musicgen_lora.errors import DISK_FAULTS, RunError, UserError

AUDIO_EXTENSIONS = {".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc"}
FFMPEG_EXTENSIONS = {".m4a", ".aac"}
"""What `prepare` reads through `audio.ffmpeg`."""
SAMPLE_RATES = range(4_000, 384_001)
MAX_CHANNELS = 16
MAX_READ_S = 3600.0
"""A single read never takes more than an hour of audio; longer files are read in windows."""
BLOCK_FRAMES = 1 << 16


class AudioError(UserError):
    """An audio file that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says; `duration_s` may be a lie until it has been read."""

    sample_rate: int
    n_channels: int
    duration_s: float


def probe(path: Path) -> AudioInfo:
    """Reads a header.

    Raises:
        AudioError: missing, not audio, or of a rate or channel count out of bounds.
    """
    with _open(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames / file.samplerate)


def _open(path: Path) -> soundfile.SoundFile:
    if not path.is_file():
        raise AudioError(f"{path}: no such audio file.")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        _check_disk(path)
        reason = getattr(error, "error_string", str(error))
        raise AudioError(f"{path}: not readable as audio ({str(reason).strip()}).") from error
    if file.samplerate not in SAMPLE_RATES or not 1 <= file.channels <= MAX_CHANNELS:
        reason = f"{file.samplerate} Hz, {file.channels} channels"
        file.close()
        raise AudioError(f"{path}: {reason} is out of bounds (4-384 kHz, up to 16 channels).")
    return file


def _check_disk(path: Path) -> None:
    """Raises a RunError where a file can't be read for the disk's sake, which libsndfile doesn't
    tell from a broken file."""
    try:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        kind = RunError if error.errno in DISK_FAULTS else AudioError
        raise kind(f"{path}: cannot be read ({error.strerror}).") from error


def read_audio(
    path: Path,
    sample_rate: int,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """Reads a stretch of a file and resamples it once.

    Args:
        path: any format of `AUDIO_EXTENSIONS`; the content decides, not the name.
        sample_rate: of the result in Hz.
        start_s: where to begin.
        duration_s: how much; None reads to the end, at most `MAX_READ_S`.

    Returns:
        `[C, N]` float32, C is 1 or 2 (more channels are folded to their mean).

    Raises:
        AudioError: unreadable, empty there, or with NaN or infinite samples.
    """
    with _open(path) as file:
        rate = file.samplerate
        wanted = round(min(duration_s if duration_s is not None else MAX_READ_S, MAX_READ_S) * rate)
        blocks = []
        try:
            if start_s > 0.0:
                file.seek(min(round(start_s * rate), file.frames))
            while wanted > 0:
                block = file.read(min(wanted, BLOCK_FRAMES), dtype="float32", always_2d=True)
                if not len(block):
                    break
                if block.shape[1] > 2:
                    block = block.mean(axis=1, keepdims=True)
                blocks.append(block)
                wanted -= len(block)
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            _check_disk(path)
            raise AudioError(f"{path}: broken audio ({str(error).strip()}).") from error
    if not blocks:
        raise AudioError(f"{path}: no audio in it at {start_s:g} s.")
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: has NaN or infinite samples; export it again.")
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate, quality="VHQ")
    return np.ascontiguousarray(samples.T, dtype=np.float32)


def iter_audio(
    path: Path, *, start_s: float = 0.0, duration_s: float | None = None, n_block: int = 1 << 22
) -> Iterator[np.ndarray]:
    """A stretch of a file at its own rate, block by block: memory doesn't grow with its length.

    Args:
        path: any format of `AUDIO_EXTENSIONS`.
        start_s: where to begin.
        duration_s: how much; None reads to the end, whatever the header says.
        n_block: samples a channel in a block; the last one has what is left.

    Yields:
        `[C, N]` float32, C is 1 or 2 (more channels are folded to their mean).

    Raises:
        AudioError: unreadable, or with NaN or infinite samples.
    """
    with _open(path) as file:
        left = None if duration_s is None else round(duration_s * file.samplerate)
        try:
            if start_s > 0.0:
                file.seek(min(round(start_s * file.samplerate), file.frames))
            while left is None or left > 0:
                wanted = n_block if left is None else min(n_block, left)
                pieces, n_read = [], 0
                while n_read < wanted:
                    count = min(BLOCK_FRAMES, wanted - n_read)
                    piece = file.read(count, dtype="float32", always_2d=True)
                    if not len(piece):
                        break
                    if piece.shape[1] > 2:
                        piece = piece.mean(axis=1, keepdims=True)
                    pieces.append(piece)
                    n_read += len(piece)
                if not n_read:
                    return
                block = np.ascontiguousarray(np.concatenate(pieces).T)
                if not np.isfinite(block).all():
                    raise AudioError(f"{path}: has NaN or infinite samples; export it again.")
                left = None if left is None else left - n_read
                yield block
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            _check_disk(path)
            raise AudioError(f"{path}: broken audio ({str(error).strip()}).") from error


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Writes `[C, N]` as 16-bit WAV, whole or not at all.

    Samples beyond full scale are never wrapped or clipped: the clip is turned down to -0.1 dBFS.
    """
    content = wav_bytes(waveform, sample_rate)
    write_file(path, lambda temporary: temporary.write_bytes(content))


def wav_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """What `write_wav` writes. (libsndfile doesn't say which fault of a disk it has met.)"""
    peak = float(np.abs(waveform).max(initial=0.0))
    ceiling = 10.0 ** (-0.1 / 20.0)
    if peak > ceiling:
        waveform = waveform * (ceiling / peak)
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.T, sample_rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def find_audio(folder: Path) -> list[Path]:
    """Audio files below `folder` by extension, sorted. Hidden files and links that lead out of
    the folder are left out."""
    root = folder.resolve()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_EXTENSIONS | FFMPEG_EXTENSIONS
        and not path.name.startswith(".")
        and path.is_file()
        and path.resolve().is_relative_to(root)
    )
