"""Detects single hits: one onset, and then only its decay.

A sample pack has kicks and cymbals besides its loops. A kick that rings for two seconds is as long
as a short loop, but it isn't a beat.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, sosfilt

LONGEST_S = 10.0
"""Cymbals and bells ring for up to seven seconds."""
BANDS_HZ = ((30.0, 150.0), (150.0, 1000.0), (1000.0, 5000.0), (5000.0, 14_000.0))
FRAME_S = 0.01
SMOOTHED_FRAMES = 3
BAND_RANGE_DB = 25.0
"""A band counts if its loudest moment is no further below that of all bands together."""
DEPTH_DB = 40.0
"""Levels further below a band's loudest moment count as silence."""
HEARD_DB = 20.0
"""A rise counts if it comes this near to the band's loudest moment."""
ONSET_FRAMES = 10
"""The hit reaches its peak within this many frames of its start."""
RISE_DB = 10.0
"""A band that rises by more after the hit contains another hit. With the bounds below, 112 of 116
shipped hits don't; all of 360 loops in dry and wet rooms do, and of their 1,599 single tracks all
but 12, such as a hit with its ghost (`benchmarks/listening/one_shots.py`)."""
HELD_DB = 2.0
"""Halfway to its end, which is `HEARD_DB` below its peak, a hit has faded by more than this."""
DECAY_DB = 9.0
"""A hit ends at least this far below its peak; sound that holds is a tone or a texture."""


def is_one_shot(waveform: np.ndarray, sample_rate: int) -> bool:
    """Whether a recording `[C, N]` at `sample_rate` Hz is a single hit."""
    if waveform.shape[1] > LONGEST_S * sample_rate:
        return False
    bands = _band_powers(waveform, sample_rate)
    total_db = _decibels(bands.sum(axis=0))
    loudest_db = float(total_db.max(initial=-np.inf))
    if not loudest_db > _decibels(np.zeros(1))[0]:
        return False
    last = total_db[int(0.9 * len(total_db)) :]
    if loudest_db - float(last.mean()) < DECAY_DB or _is_held(total_db):
        return False
    start = int(np.flatnonzero(total_db > loudest_db - BAND_RANGE_DB)[0])
    return all(
        _later_rise(row, start) <= RISE_DB
        for row in _decibels(bands)
        if float(row.max()) > loudest_db - BAND_RANGE_DB
    )


def _is_held(level_db: np.ndarray) -> bool:
    """Whether a sound of level `[F]` stops rather than decays: halfway to its end it is nearly as
    loud as at its peak."""
    loudest = int(level_db.argmax())
    after = level_db[loudest:]
    faded = np.flatnonzero(after < after[0] - HEARD_DB)
    end = int(faded[0]) if len(faded) else len(after)
    middle = after[end // 2 - end // 8 : end // 2 + end // 8 + 1]
    return float(after[0] - middle.mean()) < HELD_DB


def _later_rise(level_db: np.ndarray, start: int) -> float:
    """Returns by how many dB a band's level `[F]` rises again after the hit at frame `start`."""
    level_db = np.maximum(level_db, level_db.max() - DEPTH_DB)
    height = start + int(level_db[start : start + ONSET_FRAMES].argmax())
    after = level_db[height:]
    rise = after - np.minimum.accumulate(after)
    return float(rise[after > level_db.max() - HEARD_DB].max(initial=0.0))


def _band_powers(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean power of all channels per frame, `[bands, F]`."""
    hop = max(1, round(FRAME_S * sample_rate))
    n_frames = max(1, waveform.shape[1] // hop)
    short = max(0, hop - waveform.shape[1])
    samples = np.pad(waveform, ((0, 0), (0, short)))[:, : n_frames * hop]
    powers = []
    for low_hz, high_hz in BANDS_HZ:
        high_hz = min(high_hz, 0.45 * sample_rate)
        if low_hz >= high_hz:
            continue
        filters = butter(2, [low_hz, high_hz], "bandpass", fs=sample_rate, output="sos")
        power = np.square(np.asarray(sosfilt(filters, samples, axis=1))).mean(axis=0)
        powers.append(power.reshape(n_frames, hop).mean(axis=1))
    return uniform_filter1d(np.stack(powers), SMOOTHED_FRAMES, axis=1, mode="constant")


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10.0 * np.log10(np.maximum(power, 1e-12))
