"""Finds the notes of a bass, above all an 808's: start, pitch and glide.

A bass line is monophonic, so its fundamental can be tracked frame by frame in a signal decimated to
1 kHz: the pitch whose first harmonics have most energy (Hermes, Measurement of pitch by subharmonic
summation, JASA 1988). Onsets cut the track into notes. The kick is in the same band; unlike a note,
it dies away within a quarter of a second.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import soxr
from scipy.signal.windows import hann

from musicgen_lora.audio.spectra import FRAMES_AT_ONCE, harmonic_gains, magnitudes
from musicgen_lora.listening.rhythm.onsets import find_onsets

BASS_RATE = 1_000
LOW_HZ, HIGH_HZ = 20.0, 120.0
WINDOW_S, PITCH_HOP_S = 0.1, 0.01
N_FFT = 1024
BASS_HARMONIC_GAINS = (1.0, 0.5, 0.3)
PITCHES = np.arange(15.5, 47.5, 0.1)
"""Candidate MIDI notes: 20 to 125 Hz."""
FLOOR_DB = -50.0
"""Below this level of a full-scale sine there is no note ..."""
RANGE_DB = 30.0
"""... nor this far below the loudest of the recording."""
ATTACK_S = 0.07
"""By then the kick and the pitch drop at a note's start are over."""
SHORTEST_S = 0.1
KICK_DB_PER_S = 60.0
"""Sound that dies away faster than this is a kick or a tom, not a note ..."""
N_FALL = 5
"""... measured over this many frames."""
EARLY_S = 0.02
"""The long window of the flux detects an onset this early."""
FAINT_DB = 12.0
GLIDE_SEMITONES = 0.7
DECIBELS_OF_E = 20.0 / np.log(10.0)
SHORTEST_FALL_S = 0.2
LONGEST_DECAY_S = 20.0


@dataclass(frozen=True)
class BassNote:
    """A note of the bass.

    Args:
        pitch: fractional MIDI number before any glide.
        glide: semitones from there to its final pitch; 0 if it holds its pitch.
        level_db: level of its loudest moment after the attack; a full-scale sine is 0.
        decay_s: time in which it falls by 8.7 dB (to 1/e) while it is held; NaN if it is held too
            briefly to tell, or doesn't fall.
    """

    start_s: float
    duration_s: float
    pitch: float
    glide: float
    level_db: float
    decay_s: float = float("nan")


def find_bass_notes(waveform: np.ndarray, sample_rate: int) -> list[BassNote]:
    """Find the notes from 20 to 120 Hz of a recording `[C, N]`, in order of time."""
    low = low_part(waveform, sample_rate, BASS_RATE)
    pitches, levels_db = follow_bass(low)
    if not len(pitches):
        return []
    floor_db = max(FLOOR_DB, float(levels_db.max()) - RANGE_DB)
    onsets_s = find_onsets(low, BASS_RATE, LOW_HZ, HIGH_HZ, 0.096, early_s=EARLY_S)
    edges_s = [*onsets_s, len(low) / BASS_RATE]
    notes = []
    for start_s, end_s in itertools.pairwise(edges_s):
        note = _read_note(pitches, levels_db, float(start_s), float(end_s), floor_db)
        if note is not None:
            notes.append(note)
    return notes


def low_part(waveform: np.ndarray, sample_rate: int, rate: int) -> np.ndarray:
    """Mix `[C, N]` down to mono `[M]` at a low rate."""
    mono = waveform.mean(axis=0, dtype=np.float32)
    return soxr.resample(mono, sample_rate, rate, "LQ") if len(mono) else mono


def follow_bass(low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pitch (MIDI) and level (dB re a full-scale sine) of a signal `[N]` at 1 kHz every 10 ms, both
    `[F]`, frame f centred on f x 10 ms; empty if shorter than a window."""
    n_window, hop = round(WINDOW_S * BASS_RATE), round(PITCH_HOP_S * BASS_RATE)
    if len(low) < n_window:
        return np.zeros(0), np.zeros(0)
    window = np.asarray(hann(n_window, sym=False), dtype=np.float32)
    spectrum = magnitudes(low, window, hop, N_FFT)
    gains = harmonic_gains(PITCHES, BASS_HARMONIC_GAINS, N_FFT, BASS_RATE)
    pitches, levels = [], []
    for start in range(0, spectrum.shape[1], FRAMES_AT_ONCE):
        salience = gains @ spectrum[:, start : start + FRAMES_AT_ONCE]
        pitches.append(PITCHES[salience.argmax(axis=0)])
        levels.append(salience.max(axis=0))
    return np.concatenate(pitches), 20.0 * np.log10(np.maximum(np.concatenate(levels), 1e-6))


def _read_note(
    pitches: np.ndarray, levels_db: np.ndarray, start_s: float, end_s: float, floor_db: float
) -> BassNote | None:
    # Frames at the end whose window reaches the next note are left out.
    first = round((start_s + ATTACK_S) / PITCH_HOP_S)
    last = round((end_s - 0.25 * WINDOW_S) / PITCH_HOP_S)
    levels = levels_db[first:last]
    if not len(levels):
        return None
    loudest = int(levels.argmax())
    peak_db = float(levels[loudest])
    quiet = loudest + np.flatnonzero(levels[loudest:] < max(floor_db, peak_db - RANGE_DB))
    n_heard = int(quiet[0]) if len(quiet) else len(levels)
    duration_s = n_heard * PITCH_HOP_S + ATTACK_S
    # A drum dies away throughout; a note holds for a while, however short it is cut.
    falls = levels[: max(n_heard - N_FALL, 0)] - levels[N_FALL : max(n_heard, N_FALL)]
    fall_s = N_FALL * PITCH_HOP_S
    dies = len(falls) > 0 and float(np.quantile(falls, 0.25)) > KICK_DB_PER_S * fall_s
    if duration_s < SHORTEST_S or peak_db < floor_db or dies:
        return None
    # The faint rest of a note that was cut has no reliable pitch.
    faint = loudest + np.flatnonzero(levels[loudest:n_heard] < peak_db - FAINT_DB)
    track = pitches[first : first + (int(faint[0]) if len(faint) else n_heard)]
    # At most a third at either end: a glide happens in between.
    n_end = max(1, min(len(track) // 3, round(0.15 / PITCH_HOP_S)))
    pitch, tail = float(np.median(track[:n_end])), track[-n_end:]
    # A short note reaches its final pitch only in its last moments, which the median misses.
    arrived = 0.9 if float(np.median(tail)) > pitch else 0.1
    glide = float(np.quantile(tail, arrived)) - pitch
    glide = glide if abs(float(np.median(tail)) - pitch) >= GLIDE_SEMITONES else 0.0
    return BassNote(
        start_s=start_s,
        duration_s=duration_s,
        pitch=pitch,
        glide=glide,
        level_db=peak_db,
        decay_s=_decay_s(levels[loudest:n_heard]),
    )


def _decay_s(levels_db: np.ndarray) -> float:
    """Decay time from a line through levels `[F]`, without frames whose window reaches the end."""
    held = levels_db[: len(levels_db) - round(0.5 * WINDOW_S / PITCH_HOP_S)]
    if len(held) < SHORTEST_FALL_S / PITCH_HOP_S:
        return float("nan")
    slope = float(np.polyfit(PITCH_HOP_S * np.arange(len(held)), held, 1)[0])
    return DECIBELS_OF_E / -slope if slope < -DECIBELS_OF_E / LONGEST_DECAY_S else float("nan")
