"""Finds the drums of a beat by band: kicks, snares and claps, hats.

The drums of a drum machine differ in where their energy lies, so each band's onsets are found, and
an onset counts as the band's drum if the neighbouring bands agree: a kick has a body that the start
of a bass note lacks, a snare is as loud below 5 kHz as above 6, unlike a hat. The thresholds were
set on thirty beats of the 808 kit; on thirty others (`benchmarks/loops.py --hearing`) the F1 is
0.94 for kicks, 0.91 for snares and claps, 0.94 for hats. Cymbals count as hats; toms and other
drums are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, sosfilt

from musicgen_lora.listening.rhythm.onsets import find_onsets

BANDS_HZ = {
    "low": (30.0, 120.0),
    "body": (150.0, 800.0),
    "snap": (1000.0, 5000.0),
    "hats": (6000.0, 14_000.0),
}
WINDOWS_S = {"low": 0.096, "snap": 0.023, "hats": 0.012}
EARLY_S = {"low": 0.02, "snap": 0.0, "hats": 0.0}
"""A long window detects an onset this early."""
SMOOTHED_S = 0.02
LOUDEST = 0.995
"""A band's top is this quantile of its level; the thresholds below are relative to it, in dB."""
AT_S = 0.03
"""An onset's levels are measured over this long after it."""
KICK_LOW_DB, KICK_BODY_DB = -10.0, -9.0
SNARE_SNAP_DB, SNARE_HATS_DB = -13.0, -14.0
SNARE_TILT_DB = (0.0, 14.0)
"""Range of a snare's level in the snap band relative to the hats' band."""
SILENT_DB = -70.0
VELOCITY_RANGE_DB = 30.0

Drum = Literal["kick", "snare", "hat"]
DRUMS: Mapping[str, Drum] = {"low": "kick", "snap": "snare", "hats": "hat"}
"""Drums by the band in which their onsets are found."""


@dataclass(frozen=True)
class DrumHit:
    """A stroke.

    Args:
        drum: claps count as snares, cymbals as hats.
        velocity: 0 to 1, relative to the top of its band.
    """

    start_s: float
    drum: Drum
    velocity: float


def find_drum_hits(waveform: np.ndarray, sample_rate: int) -> list[DrumHit]:
    """Find the drum hits of a recording `[C, N]`, in order of time."""
    mono = waveform.mean(axis=0, dtype=np.float32)
    powers = {name: _band_power(mono, sample_rate, *edges) for name, edges in BANDS_HZ.items()}
    tops_db = {name: _top_db(power, sample_rate) for name, power in powers.items()}

    def levels_db(time_s: float) -> dict[str, float]:
        start = max(0, round(time_s * sample_rate))
        stop = start + round(AT_S * sample_rate)
        return {
            name: _decibels(power[start:stop]) - tops_db[name] for name, power in powers.items()
        }

    hits = []
    for band, drum in DRUMS.items():
        if tops_db[band] < SILENT_DB:
            continue
        onsets_s = find_onsets(
            mono, sample_rate, *BANDS_HZ[band], WINDOWS_S[band], early_s=EARLY_S[band]
        )
        for onset_s in onsets_s.tolist():
            levels = levels_db(onset_s)
            tilt_db = levels["snap"] + tops_db["snap"] - levels["hats"] - tops_db["hats"]
            if _is_drum(drum, levels, tilt_db):
                velocity = 1.0 + levels[band] / VELOCITY_RANGE_DB
                hits.append(DrumHit(onset_s, drum, float(np.clip(velocity, 0.05, 1.0))))
    return sorted(hits, key=lambda hit: (hit.start_s, hit.drum))


def _is_drum(drum: Drum, levels: dict[str, float], tilt_db: float) -> bool:
    if drum == "kick":
        return levels["low"] > KICK_LOW_DB and levels["body"] > KICK_BODY_DB
    if drum == "snare":
        is_loud = levels["snap"] > SNARE_SNAP_DB and levels["hats"] > SNARE_HATS_DB
        return is_loud and SNARE_TILT_DB[0] <= tilt_db <= SNARE_TILT_DB[1]
    return True


def _band_power(mono: np.ndarray, sample_rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    high_hz = min(high_hz, 0.49 * sample_rate)
    if low_hz >= high_hz:
        return np.zeros(len(mono))
    filters = butter(4, [low_hz, high_hz], "bandpass", fs=sample_rate, output="sos")
    return np.square(np.asarray(sosfilt(filters, mono)))


def _top_db(power: np.ndarray, sample_rate: int) -> float:
    smooth = uniform_filter1d(power, max(1, round(SMOOTHED_S * sample_rate)))[:: sample_rate // 100]
    return _decibels(np.quantile(smooth, LOUDEST, keepdims=True)) if len(smooth) else -100.0


def _decibels(power: np.ndarray) -> float:
    return 10.0 * float(np.log10(power.mean() + 1e-10)) if len(power) else -100.0
