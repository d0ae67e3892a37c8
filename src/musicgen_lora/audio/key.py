"""The key of a recording, from its bass notes and its tones.

An 808 beat often has no pitched sound but its bass, and a common chroma drowns that in drums.
So the bass speaks for itself, by the notes that `bass` followed; the tones above are peaks of
the spectrum that stand over the drums' noise. Each pitch class then votes for each key by a
profile (Krumhansl & Kessler, Tracing the dynamic changes in perceived tonal organization, 1982,
found the first ones by asking listeners). Theirs and Temperley's suppose chords and melodies:
on a bass that plays little but roots, fifths and sevenths they do worse than profiles fitted for
bass and tones apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from scipy.ndimage import uniform_filter1d
from scipy.signal.windows import hann

from musicgen_lora.audio.bass import BassNote, find_bass_notes
from musicgen_lora.audio.spectra import magnitudes

NOTE_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MODES = ("major", "minor")
TONE_RATE = 4_000
LOW_HZ, HIGH_HZ = 110.0, 1500.0
WINDOW_S, HOP_S = 0.4, 0.1
N_FFT = 4096
ABOVE_NOISE = 3.0
"""A tone's peak is this many times the mean of the 120 Hz around it."""
SILENT_DB = -70.0
LONGEST_NOTE_S = 0.6
"""A note that rings for longer says no more about the key."""
GLIDE_SHARE = 0.2
"""What the end of a glide weighs against its start."""
ENOUGH_BASS_S = 2.0
ENOUGH_TONES = 0.05
"""With less of it, bass and tones say accordingly less: a drum has a pitch as well."""
BASS_PROFILES = np.array(
    [
        [5.33, -6.57, -1.01, -3.07, 3.08, 2.15, -3.52, 3.77, -3.24, 4.07, 0.29, -0.86],
        [9.45, -5.85, -5.32, 2.37, -4.42, -1.44, -0.88, 5.34, 2.31, -3.89, 4.23, -2.32],
    ]
)
TONE_PROFILES = np.array(
    [
        [17.56, -20.04, 6.37, -13.69, 15.65, 8.37, -8.78, 15.25, -10.46, 10.1, -5.14, 10.46],
        [14.82, -26.43, -0.94, 15.81, -10.12, 4.38, -20.82, 12.92, -5.38, -4.15, 5.02, -10.78],
    ]
)
MINOR_ODDS = 3.63
"""Log odds for a key by the share of each of its degrees, major and minor; of minor against
major when no third is heard. Fitted by `benchmarks/analysis_accuracy.py --fit` on the same clips
as the weights of `metre`."""


@dataclass(frozen=True)
class Key:
    """A key.

    Args:
        name: as in "C# minor"; None when nothing has a pitch.
        confidence: 0 to 1, that it is right, its mode included.
    """

    name: str | None
    confidence: float


def estimate_key(
    waveform: np.ndarray, sample_rate: int, *, notes: Sequence[BassNote] | None = None
) -> Key:
    """The key of a recording `[C, N]` at `sample_rate` Hz; dorian counts as minor, mixolydian as
    major.

    Args:
        waveform: the recording.
        sample_rate: Hz.
        notes: its bass notes, where they are at hand.
    """
    if notes is None:
        notes = find_bass_notes(waveform, sample_rate)
    bass, tones = pitch_evidence(waveform, sample_rate, notes)
    if not bass.any() and not tones.any():
        return Key(None, 0.0)
    odds = np.stack(
        [
            [
                np.roll(bass, -tonic) @ in_bass + np.roll(tones, -tonic) @ in_tones
                for tonic in range(12)
            ]
            for in_bass, in_tones in zip(BASS_PROFILES, TONE_PROFILES, strict=True)
        ]
    )
    odds[MODES.index("minor")] += MINOR_ODDS
    shares = np.exp(odds - odds.max())
    shares /= shares.sum()
    mode, tonic = np.unravel_index(int(shares.argmax()), shares.shape)
    return Key(f"{NOTE_NAMES[tonic]} {MODES[mode]}", float(shares[mode, tonic]))


def pitch_evidence(
    waveform: np.ndarray, sample_rate: int, notes: Sequence[BassNote]
) -> tuple[np.ndarray, np.ndarray]:
    """Chroma of the bass and of the tones, both `[12]`, C first; each sums to 1 when there is
    enough of it, to less when it is hardly there."""
    bass = bass_chroma(notes) * min(1.0, sum(note.duration_s for note in notes) / ENOUGH_BASS_S)
    tones, tonal = tone_chroma(waveform, sample_rate)
    return bass, tones * min(1.0, tonal / ENOUGH_TONES)


def bass_chroma(notes: Sequence[BassNote]) -> np.ndarray:
    """Share of each pitch class `[12]`, C first, in bass notes; 0 without any."""
    chroma = np.zeros(12)
    for note in notes:
        weight = min(note.duration_s, LONGEST_NOTE_S) * 10.0 ** (note.level_db / 40.0)
        chroma[round(note.pitch) % 12] += weight
        if note.glide:
            chroma[round(note.pitch + note.glide) % 12] += GLIDE_SHARE * weight
    return chroma / max(float(chroma.sum()), 1e-9)


def tone_chroma(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Share of each pitch class `[12]` in the tones from 110 to 1500 Hz of `[C, N]`, and how
    tonal that band is: the tones' share of its magnitude. Both 0 when there are none."""
    mono = waveform.mean(axis=0, dtype=np.float32)
    low = soxr.resample(mono, sample_rate, TONE_RATE, "LQ") if len(mono) else mono
    n_window = round(WINDOW_S * TONE_RATE)
    if len(low) < n_window:
        return np.zeros(12), 0.0
    window = np.asarray(hann(n_window, sym=False), dtype=np.float32)
    # Whole windows alone.
    hop = round(HOP_S * TONE_RATE)
    first = -(-(n_window // 2) // hop)
    n_frames = max(1, (len(low) - n_window + n_window // 2) // hop + 1 - first)
    magnitude = magnitudes(low, window, hop, N_FFT, first=first, n_frames=n_frames)
    hertz_a_bin = TONE_RATE / N_FFT
    # Drums are wide, tones narrow: a peak has to stand over its surroundings.
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
    # Loud tones say more, but not ten times more.
    weights = np.sqrt(magnitude[bins, frames])
    # Samples are rarely tuned to 440 Hz: the mean deviation from the tempered scale.
    detuned = float(np.angle(np.sum(weights * np.exp(2j * np.pi * pitches)))) / (2.0 * np.pi)
    classes = np.round(pitches - detuned).astype(int) % 12
    chroma = np.bincount(classes, weights, minlength=12)
    tonal = float(magnitude[bins, frames].sum() / magnitude[low_bin:high_bin].sum())
    return chroma / chroma.sum(), tonal
