"""The loudness and true peak of a waveform."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyloudnorm
import soxr

OVERSAMPLING = 4
BLOCK = 1 << 20
"""Samples processed at once, so that memory stays constant."""
OVERLAP = 1 << 8
LOUDNESS_BLOCK_S = 0.4
FLOOR_DB = -120.0


def decibels(power: float) -> float:
    """A power (full scale is 1) in dB, at least `FLOOR_DB`."""
    return max(10.0 * float(np.log10(max(power, 1e-30))), FLOOR_DB)


def level_db(waveform: np.ndarray) -> float:
    """The level of `[C, N]` without its DC offset, which nobody hears; `FLOOR_DB` if empty."""
    return decibels(float(np.var(waveform, axis=1).mean()) if waveform.size else 0.0)


def blocks(waveform: np.ndarray) -> Iterator[np.ndarray]:
    """`[C, N]` in blocks that overlap a little."""
    for start in range(0, waveform.shape[1], BLOCK):
        yield waveform[:, max(0, start - OVERLAP) : start + BLOCK + OVERLAP]


def integrated_loudness(waveform: np.ndarray, sample_rate: int) -> float:
    """LUFS of `[C, N]`; NaN below 0.4 s or if all of it is below the gate of -70 LUFS."""
    # A block's worth of samples and one to spare: pyloudnorm rounds the block's end.
    if waveform.shape[1] <= LOUDNESS_BLOCK_S * sample_rate or not waveform.any():
        return float("nan")
    # BS.1770 weights for left and right are known; more channels are measured as their mean.
    heard = waveform if len(waveform) <= 2 else waveform.mean(axis=0, keepdims=True)
    loudness = float(pyloudnorm.Meter(sample_rate).integrated_loudness(heard.T.astype(np.float64)))
    return loudness if np.isfinite(loudness) else float("nan")


def true_peak_db(waveform: np.ndarray, sample_rate: int) -> float:
    """Largest magnitude of `[C, N]` between the samples too, in dB of full scale."""
    peak = float(np.abs(waveform).max())
    for block in blocks(waveform):
        between = soxr.resample(block.T, sample_rate, OVERSAMPLING * sample_rate, quality="HQ")
        # A block's ends ring; at the recording's own ends only the samples themselves count.
        inside = between[OVERLAP * OVERSAMPLING // 2 : -(OVERLAP * OVERSAMPLING // 2)]
        peak = max(peak, float(np.abs(inside).max(initial=0.0)))
    return decibels(peak**2)
