"""The key of a recording, from its bass line and its tones.

An 808 beat often has no pitched sound but its bass, and an ordinary chroma drowns that in drums.
So the bass is measured by itself, twice: by the long notes that `bass` finds, including glides,
and, for notes that are short or leap over octaves, by the steady pitch whose harmonics have most of
the low spectrum. The tones above are spectral peaks that exceed the noise of the drums.

Each pitch class then votes for each key by a profile (Krumhansl & Kessler, Tracing the dynamic
changes in perceived tonal organization, 1982, found the first ones by asking listeners), once with
its share and once with the square root of it: a scale's rare notes distinguish relative keys. The
profiles are fitted separately for notes, line and tones, also on clips without a key, so that a
drum's pitch gives no confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal.windows import hann

from musicgen_lora.audio.spectra import FRAMES_AT_ONCE, harmonic_gains, magnitudes
from musicgen_lora.beats.sequencer import NOTE_NAMES
from musicgen_lora.listening.pitch.bass import BassNote, find_bass_notes, low_part

MODES = ("major", "minor")

TONE_RATE = 4_000
LOW_HZ, HIGH_HZ = 110.0, 1500.0
WINDOW_S, TONE_HOP_S = 0.4, 0.1
N_FFT = 4096
ABOVE_NOISE = 3.0
"""A tone's peak is this many times the mean of the 120 Hz around it."""
SILENT_DB = -70.0
ENOUGH_TONES = 0.05
"""Tonal share below which tones count proportionally less: a drum has a pitch as well."""

LONGEST_NOTE_S = 0.6
"""Longer notes count no more than this."""
GLIDE_SHARE = 0.2
"""Weight of the end of a glide relative to its start."""
ENOUGH_NOTES_S = 2.0

BASS_RATE = 2_000
BASS_WINDOW_S, BASS_HOP_S = 0.15, 0.02
BASS_N_FFT = 2048
BASS_PITCHES = np.arange(21.5, 57.5, 0.1)
"""Candidate MIDI notes: 28 to 225 Hz."""
KEY_HARMONIC_GAINS = tuple(0.7**order for order in range(6))
BASS_HZ = 130.0
BASS_SHARE = 0.4
"""If nothing up to `BASS_HZ` has this share of the frame's strongest magnitude, there is no bass,
only the low end of chords."""
BASS_SILENT_DB = -60.0
FAINT_BASS = 0.1
"""Sound below this share of the recording's strongest bass doesn't count as bass."""
STEADY_SEMITONES = 0.3
"""A bass moves less than this from frame to frame; a kick's pitch falls faster ..."""
FALL_DB, N_FALL = 3.0, 4
"""... and its level falls by more than this within so many frames."""
ENOUGH_BASS = 0.2
"""Share of frames with a bass below which the bass counts proportionally less."""
BASS_TELLS = ((4, 9, 11), (3, 8, 10))
"""Third, sixth and seventh of major and of minor: root, second, fourth and fifth are in both."""
TONES_TELL = ((4, 9, 11), (3, 8))
"""Without minor's seventh, which is a harmonic of a distorted bass."""
ENOUGH_TELLING = 0.02
"""Share of the evidence on its mode's own degrees below which a key is proportionally less sure:
one note has a pitch, but no mode."""
PROFILES = np.array(
    [
        [
            [-0.87, 0.41, -0.47, 1.99, -0.06, -1.86, 1.74, -1.11, 1.46, -0.76, 1.24, -0.29],
            [0.46, 1.45, -1.71, -0.97, -0.26, 0.96, 2.51, -2.26, 2.2, -0.69, 3.21, 2.31],
            [7.67, -0.8, 4.34, -4.71, 6.43, -0.9, -5.08, 5.98, -2.25, 0.41, 3.89, 2.86],
            [1.39, -0.71, 0.61, -1.55, 0.12, 1.33, -1.75, 1.15, -1.44, 0.53, -1.1, -0.06],
            [2.19, -1.51, -0.86, -0.88, 1.09, 0.72, -1.78, 2.28, -2.28, 1.09, -1.32, -1.46],
            [1.08, -1.6, -2.51, -0.99, 0.21, 3.26, 0.08, 0.44, 0.47, 0.76, -3.08, 1.03],
        ],
        [
            [-1.68, 0.51, 1.68, -0.72, 2.66, -0.68, -1.32, -1.53, 0.89, 1.45, -1.8, -0.87],
            [4.8, -4.56, -7.68, -1.74, 1.48, 2.27, -0.6, -0.73, -0.13, -1.63, 1.79, -0.48],
            [5.95, -4.79, -7.11, 1.11, -7.01, -2.77, 0.68, -0.47, -0.85, 5.54, -2.7, -5.43],
            [2.16, -0.71, -1.21, 0.79, -1.72, 0.42, 0.79, 1.5, -0.8, -1.13, 1.75, -0.37],
            [1.73, -0.94, 0.14, 2.25, -1.87, -1.67, 0.56, 2.01, 1.58, -1.52, 0.76, -0.3],
            [1.27, -5.32, 3.1, 5.23, -0.73, 2.1, -4.9, 5.28, -2.53, -3.82, 1.48, -0.3],
        ],
    ]
)
MINOR_ODDS = 0.03
"""Log odds for a key by the share of each of its degrees, `[mode, block, degree]` with the blocks
bass notes, bass line, tones and the square roots of the three; and of minor over major without any
evidence. Fitted by `benchmarks/listening/analysis_accuracy.py --fit key` on seeds that its report
doesn't use."""


@dataclass(frozen=True)
class Key:
    """A key.

    Args:
        name: as in "C# minor"; None if nothing has a pitch.
        confidence: 0 to 1, that it is right, including its mode.
    """

    name: str | None
    confidence: float


def estimate_key(
    waveform: np.ndarray, sample_rate: int, *, notes: Sequence[BassNote] | None = None
) -> Key:
    """Estimate the key of a recording `[C, N]` at `sample_rate` Hz; dorian counts as minor,
    mixolydian as major.

    Args:
        notes: its bass notes, if they are known already.
    """
    if notes is None:
        notes = find_bass_notes(waveform, sample_rate)
    evidence = pitch_evidence(waveform, sample_rate, notes)
    if not evidence.any():
        return Key(None, 0.0)
    odds = key_features(evidence) @ np.append(PROFILES.reshape(2, -1), [[0.0], [MINOR_ODDS]], 1).T
    shares = np.exp(odds - odds.max())
    shares /= shares.sum()
    tonic, mode = np.unravel_index(int(shares.argmax()), shares.shape)
    bass, tones = (
        [(int(tonic) + degree) % 12 for degree in degrees[mode]]
        for degrees in (BASS_TELLS, TONES_TELL)
    )
    telling = float((evidence[:2, bass].sum() + evidence[2, tones].sum()) / evidence.sum())
    confidence = float(shares[tonic, mode]) * min(1.0, telling / ENOUGH_TELLING)
    return Key(f"{NOTE_NAMES[tonic]} {MODES[mode]}", confidence)


def pitch_evidence(waveform: np.ndarray, sample_rate: int, notes: Sequence[BassNote]) -> np.ndarray:
    """Chroma of the bass notes, the bass line and the tones `[3, 12]`, C first; each sums to 1, or
    to less if there is little of it."""
    held_s = sum(note.duration_s for note in notes)
    line, held = bass_chroma(waveform, sample_rate)
    tones, tonal = tone_chroma(waveform, sample_rate)
    return np.stack(
        [
            note_chroma(notes) * min(1.0, held_s / ENOUGH_NOTES_S),
            line * min(1.0, held / ENOUGH_BASS),
            tones * min(1.0, tonal / ENOUGH_TONES),
        ]
    )


def key_features(evidence: np.ndarray) -> np.ndarray:
    """Features `[12, 73]` of evidence `[3, 12]` for the profiles: relative to each tonic, the
    shares, their square roots, and a constant 1."""
    blocks = np.concatenate([evidence, np.sqrt(evidence)])
    rolled = [np.append(np.roll(blocks, -tonic, axis=1), 1.0) for tonic in range(12)]
    return np.stack(rolled)


def note_chroma(notes: Sequence[BassNote]) -> np.ndarray:
    """Share of each pitch class `[12]`, C first, in the bass notes; 0 without any."""
    chroma = np.zeros(12)
    for note in notes:
        weight = min(note.duration_s, LONGEST_NOTE_S) * 10.0 ** (note.level_db / 40.0)
        chroma[round(note.pitch) % 12] += weight
        if note.glide:
            chroma[round(note.pitch + note.glide) % 12] += GLIDE_SHARE * weight
    return chroma / max(float(chroma.sum()), 1e-9)


def bass_chroma(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Share of each pitch class `[12]` in the bass line of `[C, N]`, and the share of frames with a
    bass. Both are 0 if there is none."""
    low = low_part(waveform, sample_rate, BASS_RATE)
    n_window, hop = round(BASS_WINDOW_S * BASS_RATE), round(BASS_HOP_S * BASS_RATE)
    if len(low) < n_window:
        return np.zeros(12), 0.0
    window = np.asarray(hann(n_window, sym=False), dtype=np.float32)
    magnitude = magnitudes(low, window, hop, BASS_N_FFT)
    loudest = magnitude.max(axis=0)
    below = magnitude[: round(BASS_HZ * BASS_N_FFT / BASS_RATE)].max(axis=0)
    is_bass = (below >= BASS_SHARE * loudest) & (loudest >= 10.0 ** (BASS_SILENT_DB / 20.0))
    pitches, levels = _follow(magnitude)
    moves = np.abs(np.diff(pitches)) >= STEADY_SEMITONES
    is_bass[1:] &= ~moves
    is_bass[:-1] &= ~moves
    is_bass &= levels > FAINT_BASS * levels.max(initial=0.0)
    # The levels are sums of square roots of magnitudes.
    levels_db = 40.0 * np.log10(np.maximum(levels, 1e-6))
    half = N_FALL // 2
    is_bass[half:-half] &= levels_db[2 * half :] - levels_db[: -2 * half] > -FALL_DB
    if not is_bass.any():
        return np.zeros(12), 0.0
    pitches, weights = pitches[is_bass], levels[is_bass]
    chroma = np.bincount(_classes(pitches, weights), weights, minlength=12)
    return chroma / chroma.sum(), float(is_bass.mean())


def _follow(magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pitch (MIDI) of the strongest series of harmonics in each frame of `[bins, F]`, and the sum
    of the square roots of its magnitudes, both `[F]`."""
    gains = harmonic_gains(BASS_PITCHES, KEY_HARMONIC_GAINS, BASS_N_FFT, BASS_RATE)
    width = round(80.0 * BASS_N_FFT / BASS_RATE)
    pitches, levels = [], []
    for start in range(0, magnitude.shape[1], FRAMES_AT_ONCE):
        root = np.sqrt(magnitude[:, start : start + FRAMES_AT_ONCE])
        # The kick and the noise of drums are broadband, harmonics are not.
        salience = gains @ np.maximum(root - uniform_filter1d(root, width, axis=0), 0.0)
        pitches.append(BASS_PITCHES[salience.argmax(axis=0)])
        levels.append(salience.max(axis=0))
    return np.concatenate(pitches), np.concatenate(levels)


def _classes(pitches: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pitch class of each pitch, both `[P]`. Samples are rarely tuned to 440 Hz, so the mean
    deviation from the tempered scale is removed."""
    detuned = float(np.angle(np.sum(weights * np.exp(2j * np.pi * pitches)))) / (2.0 * np.pi)
    return np.round(pitches - detuned).astype(int) % 12


def tone_chroma(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Share of each pitch class `[12]` in the tones from 110 to 1500 Hz of `[C, N]`, and how tonal
    that band is: the tones' share of its magnitude. Both are 0 if there are none."""
    low = low_part(waveform, sample_rate, TONE_RATE)
    n_window = round(WINDOW_S * TONE_RATE)
    if len(low) < n_window:
        return np.zeros(12), 0.0
    window = np.asarray(hann(n_window, sym=False), dtype=np.float32)
    # Only whole windows.
    hop = round(TONE_HOP_S * TONE_RATE)
    first = -(-(n_window // 2) // hop)
    n_frames = max(1, (len(low) - n_window + n_window // 2) // hop + 1 - first)
    magnitude = magnitudes(low, window, hop, N_FFT, first=first, n_frames=n_frames)
    hertz_a_bin = TONE_RATE / N_FFT
    # Drums are broadband, tones narrow: a peak must exceed its surroundings.
    noise = uniform_filter1d(magnitude, round(120.0 / hertz_a_bin), axis=0)
    is_peak = np.zeros(magnitude.shape, dtype=bool)
    is_peak[1:-1] = (magnitude[1:-1] > magnitude[:-2]) & (magnitude[1:-1] >= magnitude[2:])
    is_peak &= magnitude > np.maximum(ABOVE_NOISE * noise, 10.0 ** (SILENT_DB / 20.0))
    low_bin, high_bin = int(LOW_HZ / hertz_a_bin), int(HIGH_HZ / hertz_a_bin)
    is_peak[:low_bin] = is_peak[high_bin:] = False
    bins, frames = np.nonzero(is_peak)
    if not len(bins):
        return np.zeros(12), 0.0
    left, middle, right = (np.log(magnitude[bins + side, frames] + 1e-9) for side in (-1, 0, 1))
    shift = 0.5 * (left - right) / np.minimum(left - 2.0 * middle + right, -1e-9)
    pitches = 69.0 + 12.0 * np.log2((bins + shift) * hertz_a_bin / 440.0)
    # Loud tones count more, but not ten times more.
    weights = np.sqrt(magnitude[bins, frames])
    chroma = np.bincount(_classes(pitches, weights), weights, minlength=12)
    tonal = float(magnitude[bins, frames].sum() / magnitude[low_bin:high_bin].sum())
    return chroma / chroma.sum(), tonal
