"""Measures how a loop's end leads into its beginning, compared with the rest of the loop.

A hit on the one is loud, so what counts is not that something begins there but that nothing breaks:
the steepest step at the seam is compared with the sound around it and with the loop's own hits,
changes of level and spectrum with those at the loop's other bar lines, and the phase of a bass held
across the seam on its two sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, hilbert, sosfiltfilt

from musicgen_lora.audio.fold import band_levels
from musicgen_lora.audio.loudness import decibels

AT_S = 0.0005
"""A steep step this close to the seam is attributed to the seam."""
AROUND_S = 0.01
"""It is compared with the steepest step within this distance ..."""
HIT_S, HIT_QUANTILE = 0.02, 0.95
"""... and with the loop's hits: this quantile over all stretches of this length."""
BREAK_DB = 6.0
"""A step that exceeds the sound around it by more is a click."""
FLOOR = 1e-4
EDGE_S = 0.1
HEARD_DB = -70.0
BASS_HZ = 150.0
BASS_S = 0.08
HELD_DB = -40.0
"""A bass is held across the seam if it is louder than this on both sides ..."""
SAME_PITCH = 0.04
"""... and its pitch is the same within this share, about half a semitone."""


@dataclass(frozen=True)
class Seam:
    """Measurements of a loop's seam.

    Args:
        step_db: its steepest step relative to the sound within 10 ms.
        hits_db: the same relative to the loop's own hits.
        level_db: how much the change of level at the seam differs from that at the loop's other bar
            lines; None for a loop of one bar.
        spectrum_db: the same for the change of the spectrum, root mean square over bands; None for
            a loop of one bar.
        phase_deg: phase jump of a bass held across the seam; None if there is none.
    """

    step_db: float
    hits_db: float
    level_db: float | None
    spectrum_db: float | None
    phase_deg: float | None

    @property
    def clicks(self) -> bool:
        """Whether it is audible as a click."""
        return self.step_db > BREAK_DB or self.hits_db > 0.0


def measure_seam(loop: np.ndarray, sample_rate: int, n_bars: int) -> Seam:
    """Measure the seam of a loop `[C, N]` of whole bars, between its last sample and its first."""
    # Rotated by half, so that the seam is in the middle.
    middle = loop.shape[1] // 2
    turned = np.roll(loop, middle, axis=1)
    step_db, hits_db = _steps(turned, middle, sample_rate)
    bar = loop.shape[1] / n_bars
    lines = [round(index * bar) for index in range(1, n_bars)]
    changes = np.array([_change(loop, line, sample_rate) for line in [0, *lines]])
    # Compared with the most similar bar line: bars differ, and a fill ends in its own way.
    off = changes[1:] - changes[0]
    level = np.abs(off[:, 0]).min() if lines else None
    spectrum = np.sqrt(np.square(off[:, 1:]).mean(axis=1)).min() if lines else None
    return Seam(
        step_db=step_db,
        hits_db=hits_db,
        level_db=None if level is None else float(level),
        spectrum_db=None if spectrum is None else float(spectrum),
        phase_deg=_phase_jump(turned, middle, sample_rate),
    )


def _steps(turned: np.ndarray, middle: int, sample_rate: int) -> tuple[float, float]:
    # The error of predicting a sample by a straight line through the previous two.
    steep = np.abs(np.diff(turned, n=2, axis=1)).max(axis=0) + FLOOR
    at, around = round(AT_S * sample_rate), round(AROUND_S * sample_rate)
    seam = steep[middle - 1 - at : middle + at]
    before = steep[middle - 1 - around : middle - 1 - at]
    after = steep[middle + at : middle + around]
    nearby = max(float(before.max()), float(after.max()))
    n_hit = round(HIT_S * sample_rate)
    rest = np.concatenate([steep[: middle - n_hit], steep[middle + n_hit :]])
    stretches = rest[: len(rest) // n_hit * n_hit].reshape(-1, n_hit).max(axis=1)
    hits = float(np.quantile(stretches, HIT_QUANTILE))
    step = float(seam.max())
    return 20.0 * float(np.log10(step / nearby)), 20.0 * float(np.log10(step / hits))


def _change(loop: np.ndarray, line: int, sample_rate: int) -> np.ndarray:
    """Change of the level and of the band levels across a bar line, `[1 + B]` in dB."""
    n_edge = min(round(EDGE_S * sample_rate), loop.shape[1] // 2)
    turned = np.roll(loop, n_edge - line, axis=1)
    sides = []
    for edge in (turned[:, :n_edge], turned[:, n_edge : 2 * n_edge]):
        whole = decibels(float(np.square(edge).mean()))
        bands = np.maximum(band_levels(edge, sample_rate)[0], HEARD_DB)
        sides.append(np.array([max(whole, HEARD_DB), *bands]))
    return sides[1] - sides[0]


def _phase_jump(turned: np.ndarray, middle: int, sample_rate: int) -> float | None:
    """Phase jump in degrees of the bass of `[C, N]` at the seam at `middle`."""
    n_side = round(BASS_S * sample_rate)
    if middle < 2 * n_side:
        return None
    reach = turned[:, middle - 2 * n_side : middle + 2 * n_side].mean(axis=0)
    filters = butter(2, BASS_HZ, "lowpass", fs=sample_rate, output="sos")
    # Each side is filtered by itself, or the filter would smooth the jump away.
    sides = [np.asarray(sosfiltfilt(filters, part)) for part in np.split(reach, 2)]
    phases = [np.unwrap(np.angle(np.asarray(hilbert(side)))) for side in sides]
    # The transform is wrong near its edges; the middle of each side gives phase and pitch.
    inside = slice(n_side // 2, 3 * n_side // 2)
    times = np.arange(n_side // 2, 3 * n_side // 2)
    lines = [np.polyfit(times, phase[inside], 1) for phase in phases]
    levels = [decibels(2.0 * float(np.square(side[inside]).mean())) for side in sides]
    pitches = [float(line[0]) for line in lines]
    is_held = min(levels) > HELD_DB and min(pitches) > 0.0
    if not is_held or abs(pitches[1] / pitches[0] - 1.0) > SAME_PITCH:
        return None
    jump = np.polyval(lines[1], 0.0) - np.polyval(lines[0], 2.0 * n_side)
    return float(np.degrees(np.angle(np.exp(1j * jump))))
