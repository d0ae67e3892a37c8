"""Magnitude spectra of many short frames at once, and the power spectrum of a whole sound. scipy's
`ShortTimeFFT` calls Python for each frame, which took four fifths of the analysis time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft
from scipy.signal import welch

FRAMES_AT_ONCE = 256


def magnitudes(
    mono: np.ndarray,
    window: np.ndarray,
    hop: int,
    n_fft: int,
    *,
    bins: slice = slice(None),
    first: int = 0,
    n_frames: int | None = None,
) -> np.ndarray:
    """Magnitudes `[bins, F]` float32 of `mono` `[N]`, scaled so that a full-scale sine reads 1.

    Args:
        mono: the signal, treated as silent beyond its ends.
        window: `[W]`; frame f is centred on sample f x hop.
        n_fft: length of the transform, at least W.
        bins: which of its n_fft / 2 + 1 bins to return.
        first: the first frame.
        n_frames: how many; None for N // hop + 1 - first.
    """
    n_frames = len(mono) // hop + 1 - first if n_frames is None else n_frames
    frames = _frames(mono, len(window))[first * hop :: hop][:n_frames]
    return _magnitudes(frames, window, n_fft, bins)


def magnitudes_at(
    mono: np.ndarray, window: np.ndarray, samples: np.ndarray, n_fft: int, bins: np.ndarray
) -> np.ndarray:
    """Magnitudes `[R, M]`, as in `magnitudes`, of frames centred on samples `[M]`, for bins `[R]`
    only: a picture needs a fifth of the frames of a long clip."""
    return _magnitudes(_frames(mono, len(window))[samples], window, n_fft, bins)


def _frames(mono: np.ndarray, length: int) -> np.ndarray:
    """Frames `[N', length]` of a signal, one centred on each sample."""
    padded = np.pad(np.asarray(mono, dtype=np.float32), (length // 2, length))
    return sliding_window_view(padded, length)


def _magnitudes(
    frames: np.ndarray, window: np.ndarray, n_fft: int, bins: slice | np.ndarray
) -> np.ndarray:
    """Magnitudes `[bins, F]` of frames `[F, W]`, computed in blocks."""
    window = np.asarray(window * (2.0 / window.sum()), dtype=np.float32)
    found = np.empty((len(np.arange(n_fft // 2 + 1)[bins]), len(frames)), dtype=np.float32)
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        block = frames[start : start + FRAMES_AT_ONCE] * window
        spectrum = np.asarray(rfft(block, n_fft, axis=1))
        found[:, start : start + FRAMES_AT_ONCE] = np.abs(spectrum[:, bins]).T
    return found


def welch_spectrum(
    waveform: np.ndarray, sample_rate: int, n_window: int, **how: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Welch's power density of `[C, N]`, averaged over channels, and its frequencies, both `[F]`;
    `how` holds further arguments of `scipy.signal.welch`."""
    frequency, power = welch(waveform, sample_rate, nperseg=n_window, **how)
    return power.mean(axis=0), frequency


def harmonic_gains(
    pitches: np.ndarray, gains: Sequence[float], n_fft: int, sample_rate: int
) -> np.ndarray:
    """The weight of each spectrum bin for each pitch, `[P, n_fft / 2 + 1]` float32.

    Args:
        pitches: MIDI notes `[P]`.
        gains: of the harmonics from the first on; those beyond the spectrum are ignored.
    """
    n_bins = n_fft // 2 + 1
    bins = 440.0 * 2.0 ** ((pitches - 69.0) / 12.0) * n_fft / sample_rate
    matrix = np.zeros((len(pitches), n_bins), dtype=np.float32)
    for harmonic, gain in enumerate(gains, 1):
        index = (bins * harmonic).astype(int)
        rows = np.flatnonzero(index < n_bins - 1)
        part = (bins * harmonic - index)[rows]
        matrix[rows, index[rows]] += gain * (1.0 - part)
        matrix[rows, index[rows] + 1] += gain * part
    return matrix
