"""A look-ahead limiter: turns down the moments whose true peak would pass a ceiling, and no others.

A clip of drums is held far below the wanted loudness by a few of its peaks. The gain here falls
before a peak and comes back after it, smoothly, so that nothing is clipped: what it leaves of
distortion is that of a slow change of volume. The peaks are those between the samples too (ITU-R
BS.1770-4, annex 2). The libraries that have such a limiter are under the GPL or need a compiler.
"""

from __future__ import annotations

import math

import numpy as np
import soxr
from scipy.ndimage import minimum_filter1d
from scipy.signal.windows import hann

from musicgen_lora.audio.loudness import OVERSAMPLING, integrated_loudness, true_peak_db

STEP_S = 0.0005
"""Time between the points at which the gain is decided; it lies on a line between them."""
LOOK_AHEAD_S = 0.01
"""The gain falls over this time before a peak."""
RELEASE_S = 0.08
"""The gain comes back by 1 - 1/e, in dB, in this time: shorter ones distort a bass of 40 Hz."""
N_ROUNDS = 12
CLOSE_LU = 0.1
"""Rounds of raising and limiting end this close to the wanted loudness."""


def limit_peaks(waveform: np.ndarray, sample_rate: int, ceiling_db: float) -> np.ndarray:
    """A recording `[C, N]` with a true peak of `ceiling_db` dBTP at most. All channels get the same
    gain, so that the stereo image stays; what has no such peaks is returned as it is."""
    gain_db = reduction_db(waveform, sample_rate, ceiling_db)
    if not gain_db.any():
        return waveform
    gain = (10.0 ** (gain_db / 20.0)).astype(np.float32)
    limited = waveform * gain
    # A gain that moves between two samples lets a hair through.
    over_db = true_peak_db(limited, sample_rate) - ceiling_db
    return limited * np.float32(10.0 ** (-max(0.0, over_db) / 20.0))


def reduction_db(waveform: np.ndarray, sample_rate: int, ceiling_db: float) -> np.ndarray:
    """The limiter's gain at each sample of `[C, N]`, in dB `[N]`, 0 at most."""
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
    # Wide enough that each value which the window averages reaches down to what is needed here, on
    # the line to the next step too.
    n_ahead = max(1, round(LOOK_AHEAD_S / STEP_S / 2.0))
    held = minimum_filter1d(needed, 2 * n_ahead + 3, mode="nearest")
    window = hann(2 * n_ahead + 1, sym=True)
    extended = np.pad(_released(held), n_ahead, mode="edge")
    smooth = np.convolve(extended, window / window.sum(), mode="valid")
    centres = (np.arange(n_steps) + 0.5) * n_step
    return np.minimum(0.0, np.interp(np.arange(n_samples), centres, smooth))


def _loudest(peaks: np.ndarray, n_steps: int, n_step: int) -> np.ndarray:
    """The loudest of each step of magnitudes `[N]`, float32."""
    padded = np.zeros(n_steps * n_step, dtype=np.float32)
    padded[: len(peaks)] = peaks
    return padded.reshape(n_steps, n_step).max(axis=1)


def _released(held: np.ndarray) -> np.ndarray:
    """Gains `[M]` in dB that fall at once and come back slowly."""
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
    """Brings a recording `[C, N]` to a loudness, with its peaks limited by no more than `most_db`.

    Returns:
        The recording, the gain in dB that it was given, and by how many dB its highest peak was
        turned down. As it was, 0 and 0 where it has no loudness.
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
    # Limiting takes loudness as well: what it takes is given again, and limited again.
    for _ in range(N_ROUNDS):
        made = limit_peaks(waveform * np.float32(10.0 ** (gain_db / 20.0)), sample_rate, ceiling_db)
        short = target_lufs - integrated_loudness(made, sample_rate)
        if short < CLOSE_LU or gain_db >= most:
            break
        gain_db = min(gain_db + short, most)
    return made, gain_db, gain_db - room_db
