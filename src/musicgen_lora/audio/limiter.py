"""A look-ahead limiter: turns down only the moments whose true peak would exceed a ceiling.

A few peaks can hold a drum clip far below the target loudness. The gain here falls smoothly before
a peak and recovers after it, so that nothing is clipped and the only distortion is that of a slow
change of volume. Peaks between samples count too (ITU-R BS.1770-4, annex 2). Libraries with such a
limiter are under the GPL or need a compiler.
"""

from __future__ import annotations

import math

import numpy as np
import soxr
from scipy.ndimage import minimum_filter1d
from scipy.signal.windows import hann

from musicgen_lora.audio.loudness import OVERSAMPLING, integrated_loudness, true_peak_db

STEP_S = 0.0005
"""Time between the points at which the gain is computed; it is interpolated linearly between."""
LOOK_AHEAD_S = 0.01
"""The gain falls over this time before a peak."""
RELEASE_S = 0.08
"""The gain recovers by 1 - 1/e, in dB, in this time: a shorter one distorts a 40 Hz bass."""
N_ROUNDS = 12
CLOSE_LU = 0.1
"""Rounds of raising and limiting end this close to the target loudness."""


def limit_peaks(waveform: np.ndarray, sample_rate: int, ceiling_db: float) -> np.ndarray:
    """Limits a recording `[C, N]` to a true peak of `ceiling_db` dBTP. All channels get the same
    gain, to keep the stereo image; a recording without higher peaks is returned unchanged."""
    gain_db = reduction_db(waveform, sample_rate, ceiling_db)
    if not gain_db.any():
        return waveform
    gain = (10.0 ** (gain_db / 20.0)).astype(np.float32)
    limited = waveform * gain
    # A gain that changes between two samples lets a tiny excess through.
    over_db = true_peak_db(limited, sample_rate) - ceiling_db
    return limited * np.float32(10.0 ** (-max(0.0, over_db) / 20.0))


def reduction_db(waveform: np.ndarray, sample_rate: int, ceiling_db: float) -> np.ndarray:
    """The limiter's gain at each sample of `[C, N]`, in dB `[N]`, at most 0."""
    n_samples = waveform.shape[1]
    n_step = max(1, round(STEP_S * sample_rate))
    between = soxr.resample(waveform.T, sample_rate, OVERSAMPLING * sample_rate, quality="HQ")
    peaks = np.abs(between).max(axis=1)[: OVERSAMPLING * n_samples]
    n_steps = math.ceil(n_samples / n_step)
    samples = np.abs(waveform).max(axis=0)
    loudest = np.maximum(
        _loudest(peaks, n_steps, n_step * OVERSAMPLING), _loudest(samples, n_steps, n_step)
    )
    needed = np.minimum(0.0, ceiling_db - 20.0 * np.log10(np.maximum(loudest, 1e-9)))
    if not needed.any():
        return np.zeros(n_samples)
    # Wide enough that every value averaged by the window is as low as needed here, also on the
    # line to the next step.
    n_ahead = max(1, round(LOOK_AHEAD_S / STEP_S / 2.0))
    held = minimum_filter1d(needed, 2 * n_ahead + 3, mode="nearest")
    window = hann(2 * n_ahead + 1, sym=True)
    extended = np.pad(_released(held), n_ahead, mode="edge")
    smooth = np.convolve(extended, window / window.sum(), mode="valid")
    centres = (np.arange(n_steps) + 0.5) * n_step
    return np.minimum(0.0, np.interp(np.arange(n_samples), centres, smooth))


def _loudest(peaks: np.ndarray, n_steps: int, n_step: int) -> np.ndarray:
    """The maximum magnitude, of `[N]`, in each step, float32."""
    padded = np.zeros(n_steps * n_step, dtype=np.float32)
    padded[: len(peaks)] = peaks
    return padded.reshape(n_steps, n_step).max(axis=1)


def _released(held: np.ndarray) -> np.ndarray:
    """Gains `[M]` in dB that fall at once and recover slowly."""
    kept = math.exp(-STEP_S / RELEASE_S)
    released, last = np.empty_like(held), 0.0
    for index, value in enumerate(held.tolist()):
        last = min(value, last * kept)
        released[index] = last
    return released


def raise_loudness(
    waveform: np.ndarray,
    sample_rate: int,
    *,
    target_lufs: float,
    ceiling_db: float,
    most_gain_db: float,
    most_db: float,
) -> tuple[np.ndarray, float, float]:
    """Brings a recording `[C, N]` to a loudness, limiting its peaks by no more than `most_db`.

    Returns:
        The recording, the gain in dB that was applied, and by how many dB its highest peak was
        turned down. Unchanged, 0 and 0 if its loudness can't be measured.
    """
    loudness = integrated_loudness(waveform, sample_rate)
    if not math.isfinite(loudness):
        return waveform, 0.0, 0.0
    room_db = ceiling_db - true_peak_db(waveform, sample_rate)
    most = min(most_gain_db, room_db + most_db)
    gain_db = min(target_lufs - loudness, most)
    made = waveform * np.float32(10.0 ** (gain_db / 20.0))
    if gain_db <= room_db:
        return made, gain_db, 0.0
    # Limiting also lowers the loudness: make up for it and limit again.
    for _ in range(N_ROUNDS):
        made = limit_peaks(waveform * np.float32(10.0 ** (gain_db / 20.0)), sample_rate, ceiling_db)
        short = target_lufs - integrated_loudness(made, sample_rate)
        if short < CLOSE_LU or gain_db >= most:
            break
        gain_db = min(gain_db + short, most)
    return made, gain_db, gain_db - room_db
