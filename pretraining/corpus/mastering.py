"""Processing of a rendered mix: a room, a lo-fi colour, the final level."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.signal import butter, oaconvolve, sosfilt

PEAK_DB = -1.0


def master(
    mix: np.ndarray, sample_rate: int, *, room: float, is_lofi: bool, seed: int
) -> np.ndarray:
    """Makes a mix `[N]` sound like a record.

    Args:
        mix: mono samples.
        sample_rate: Hz.
        room: share of reverberation, 0 to 1.
        is_lofi: whether to cut treble and add a little noise.
        seed: for the room and the noise.

    Returns:
        `[N]` float32, its peak at -1 dBFS; silence stays silence.
    """
    rng = np.random.default_rng(seed)
    if room > 0.02:
        response = _room_response(int(rng.integers(6)), sample_rate)
        mix = mix + room * oaconvolve(mix, response)[: len(mix)]
    if is_lofi:
        cut_hz = float(rng.uniform(3000.0, 5500.0))
        mix = np.asarray(sosfilt(butter(2, cut_hz, fs=sample_rate, output="sos"), mix))
        mix = mix + rng.normal(0.0, 0.003, len(mix))
    peak = float(np.abs(mix).max(initial=0.0))
    gain = 10.0 ** (PEAK_DB / 20.0) / peak if peak > 0.0 else 1.0
    return (mix * gain).astype(np.float32)


@cache
def _room_response(index: int, sample_rate: int) -> np.ndarray:
    """Decaying noise `[M]` of unit energy, 0.3 to 1.8 s long, without bass."""
    rng = np.random.default_rng(index)
    decay_s = (0.3, 0.45, 0.6, 0.9, 1.3, 1.8)[index]
    time_s = np.arange(round(decay_s * sample_rate)) / sample_rate
    noise = rng.normal(size=len(time_s)) * np.exp(-6.9 * time_s / decay_s)
    # Bass in a reverb only makes mud; in a real room the highest treble dies away first.
    noise = sosfilt(butter(2, [250.0, 6500.0], "bandpass", fs=sample_rate, output="sos"), noise)
    noise = np.concatenate([np.zeros(round(0.012 * sample_rate)), noise])
    return noise / np.sqrt(np.square(noise).sum())
