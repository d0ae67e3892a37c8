"""Finds where sounds start.

Onsets are peaks of the spectral flux: the rise of the log spectrum from one moment to the next.
Sources: Boeck & Widmer, Maximum Filter Vibrato Suppression for Onset Detection (DAFx 2013), for
the flux ("SuperFlux": the past frame is widened by a maximum filter, so that a gliding bass note
isn't heard as a row of onsets); Boeck, Krebs & Schedl, Evaluating the Online Capabilities of
Onset Detection Methods (ISMIR 2012), for the peak picking, as in madmom and librosa.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.signal.windows import hann

from musicgen_lora.audio.spectra import magnitudes

ONSET_HOP_S = 0.005
"""Time between frames, rounded to whole samples. A 1/64 note at 170 BPM lasts 22 ms."""
LAG_S = 0.015
"""A frame is compared with the one this long before it."""
RANGE_DB = 30.0
"""Depth of the log spectrum: levels further below a bin's loudest moment count as silence."""
TILT_DB = 60.0
"""A bin's loudest moment counts as at most this far below the loudest bin's, so that the noise of
empty bins doesn't become onsets."""
SILENT_DB = -70.0
"""A band that never exceeds this level (re a full-scale sine) has no onsets."""
RISE_DB = 1.5
"""The flux at an onset is this far above the mean of the 0.2 s around it ..."""
RISE_SHARE = 0.06
"""... and by at least this share of the strongest rise."""
GAP_S = 0.02
"""Two onsets are at least this far apart."""
ROLL_GAP_S = 0.09
"""Hats closer than this are a roll: a sixteenth at 165 BPM lasts 0.091 s."""


def find_onsets(
    mono: np.ndarray,
    sample_rate: int,
    low_hz: float,
    high_hz: float,
    window_s: float,
    *,
    early_s: float = 0.0,
) -> np.ndarray:
    """Times in seconds `[M]` at which sounds start in a band; one on the first sample is at 0.

    Args:
        high_hz: its upper edge; anything above half the sample rate is ignored.
        window_s: length of the Hann window: short for hats, long for basses.
        early_s: how much too early that window detects an onset.
    """
    level, rate, n_before = _levels(mono, sample_rate, low_hz, high_hz, window_s)
    peaks = _peaks(_rises(level, rate), rate)
    return np.maximum((peaks - n_before) / rate + early_s, 0.0)


def spectral_flux(
    mono: np.ndarray, sample_rate: int, low_hz: float, high_hz: float, window_s: float
) -> tuple[np.ndarray, float]:
    """Mean rise of a band's log spectrum; arguments as in `find_onsets`.

    Returns:
        Flux in dB `[F]`, frame f centred on sample f x hop, and frames per second. Zero for a band
        that is silent or above half the sample rate. The first frames are compared with silence,
        and a rise at the first sample that windows see before time 0 counts at frame 0.
    """
    level, rate, n_before = _levels(mono, sample_rate, low_hz, high_hz, window_s)
    flux, n_lag = _rises(level[:, n_before:], rate), _lag(rate)
    if int(_rises(level[:, : n_before + n_lag], rate).argmax()) <= n_before:
        flux[0] = flux[:n_lag].max()
    return flux, rate


def _lag(rate: float) -> int:
    return max(1, round(LAG_S * rate))


def _rises(level: np.ndarray, rate: float) -> np.ndarray:
    """Mean rise `[F]` of levels `[bins, F]`, with silence before the first frame."""
    n_bins, n_frames = level.shape
    if not n_bins:
        return np.zeros(n_frames)
    n_lag = min(_lag(rate), n_frames)
    before = level[:, : n_frames - n_lag]
    past = np.full_like(level, -RANGE_DB)
    # The maximum of each bin and its neighbours; scipy's filter takes six times as long.
    widened = past[:, n_lag:]
    widened[:] = before
    np.maximum(widened[1:], before[:-1], out=widened[1:])
    np.maximum(widened[:-1], before[1:], out=widened[:-1])
    rise = np.subtract(level, past, dtype=np.float64)
    return np.maximum(rise, 0.0, out=rise).mean(axis=0)


def _levels(
    mono: np.ndarray, sample_rate: int, low_hz: float, high_hz: float, window_s: float
) -> tuple[np.ndarray, float, int]:
    """Levels of a band's bins in dB relative to their own loudest moments `[bins, B + F]`, frames
    per second, and the number of frames, B, before time 0: silence precedes a recording, so that a
    sound at its start is an onset like any other. No bins if the band is silent, or above half the
    sample rate."""
    hop = max(1, round(ONSET_HOP_S * sample_rate))
    rate = sample_rate / hop
    n_window = max(16, round(window_s * sample_rate))
    # The first window sees nothing yet.
    n_before = n_window // 2 // hop + 1
    n_frames = n_before + len(mono) // hop + 1
    window = np.asarray(hann(n_window, sym=False))
    n_fft = 1 << (n_window - 1).bit_length()
    first = math.ceil(low_hz * n_fft / sample_rate)
    stop = min(math.floor(high_hz * n_fft / sample_rate), n_fft // 2) + 1
    if first >= stop or len(mono) < n_window:
        return np.zeros((0, n_frames)), rate, n_before
    heard = np.pad(mono, (n_before * hop, 0))
    magnitude = magnitudes(heard, window, hop, n_fft, bins=slice(first, stop))
    loudest = float(magnitude.max())
    if loudest < 10.0 ** (SILENT_DB / 20.0):
        return np.zeros((0, n_frames)), rate, n_before
    # Each bin relative to its own loudest moment: an 808's bass is 50 dB above its hats.
    own = np.maximum(magnitude.max(axis=1, keepdims=True), loudest * 10.0 ** (-TILT_DB / 20.0))
    level = 20.0 * np.log10(np.maximum(magnitude / own, 10.0 ** (-RANGE_DB / 20.0)))
    # A window that reaches past the end sees a cut, which isn't part of the music.
    level[:, (len(heard) - n_window // 2) // hop + 1 :] = -2.0 * RANGE_DB
    return level, rate, n_before


def pick_onsets(flux: np.ndarray, rate: float) -> np.ndarray:
    """Times in seconds `[M]` of the peaks of a flux `[F]` with `rate` frames per second."""
    return _peaks(flux, rate) / rate


def _peaks(flux: np.ndarray, rate: float) -> np.ndarray:
    """Frames `[M]` of the peaks of a flux."""
    if not float(flux.max(initial=0.0)) > 0.0:
        return np.zeros(0, dtype=int)
    reach = 2 * max(1, round(GAP_S * rate)) + 1
    around = 2 * round(0.1 * rate) + 1
    threshold = max(RISE_DB, RISE_SHARE * float(flux.max()))
    mean = uniform_filter1d(flux, around, mode="constant")
    is_peak = flux == maximum_filter1d(flux, reach, mode="constant")
    onsets: list[int] = []
    for frame in np.flatnonzero(is_peak & (flux >= mean + threshold)):
        # A plateau is one peak.
        if not onsets or frame - onsets[-1] >= GAP_S * rate:
            onsets.append(int(frame))
    return np.asarray(onsets, dtype=int)


def rolled_share(hats_s: np.ndarray) -> float:
    """Share of the hi-hats' onsets `[M]` within `ROLL_GAP_S` of the previous one."""
    return float((np.diff(hats_s) < ROLL_GAP_S).sum() / max(1, len(hats_s)))
