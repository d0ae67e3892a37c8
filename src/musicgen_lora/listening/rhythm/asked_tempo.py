"""Measures whether a recording keeps a requested tempo.

`tempo` estimates an unknown tempo, and its octave is uncertain. Here the tempo is known, and the
question is how closely the recording follows it: the positions of onsets between the sixteenths of
a grid are unit vectors on a circle, which add up if they keep to it and cancel if they don't
(Rayleigh's test). Half and double time share the grid, so a beat of 140 that feels like 70 passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen_lora.listening.rhythm.loops import weighted_onsets

REACH = 0.08
"""Tempos are searched within this share of the requested one."""
STEP = 0.0002
NEARNESS = 0.05
"""Standard deviation of a mild preference for the requested tempo: a few onsets fit several."""
STEADY_DEVIATIONS = 4.5
"""From this agreement on the beat is steady. Of 4,000 series of unrelated onsets over 9 and 16 s,
0.2 % reach it near a given tempo; 1 to 2 % reach 4, too many for several takes per loop."""
STRETCH_S = 2.0
CLEAR_DEVIATIONS = 1.5
"""From this agreement on, a stretch of `STRETCH_S` says where it drifts."""
HOP_S, SMOOTHINGS = 0.5, 4
"""Wandering is measured every `HOP_S`, over `STRETCH_S` each, and smoothed this many times."""


@dataclass(frozen=True)
class KeptTempo:
    """How well a recording keeps a tempo.

    Args:
        bpm: the tempo near the requested one that its onsets keep best; NaN without onsets.
        offset_s: time of a sixteenth of that grid, from 0 up to a sixteenth.
        agreement: of the onsets, in standard deviations of that of unrelated onsets.
        drift_s: largest distance of a stretch of the recording from the grid.
    """

    bpm: float
    offset_s: float
    agreement: float
    drift_s: float

    @property
    def is_steady(self) -> bool:
        return self.agreement >= STEADY_DEVIATIONS


def kept_tempo(strengths: np.ndarray, bpm: float, *, reach: float = REACH) -> KeptTempo:
    """Measure how well a recording keeps a tempo.

    Args:
        strengths: its onset strengths `[4, F]`, see `metre.onset_strengths`.
        reach: share of `bpm` within which the recording's tempo is searched; 0 tries only `bpm`.
    """
    onsets_s, weights = weighted_onsets(strengths)
    if not len(onsets_s):
        return KeptTempo(float("nan"), 0.0, 0.0, 0.0)
    tried = bpm * (1.0 + np.arange(-reach, reach + STEP / 2.0, STEP))
    sums = np.exp(2j * np.pi * np.outer(tried / 15.0, onsets_s)) @ weights
    # For unrelated onsets the cosines have mean 0 and variance 1/2.
    agreements = np.abs(sums) / np.sqrt(0.5 * np.square(weights).sum())
    nearness = np.exp(-0.5 * np.square((tried / bpm - 1.0) / NEARNESS))
    best = int((agreements * nearness).argmax())
    step_s = 15.0 / float(tried[best])
    offset_s = float(np.angle(sums[best])) / (2.0 * np.pi) * step_s % step_s
    return KeptTempo(
        bpm=float(tried[best]),
        offset_s=offset_s,
        agreement=float(agreements[best]),
        drift_s=_drift_s(onsets_s, weights, step_s, offset_s),
    )


def lateness(strengths: np.ndarray, kept: KeptTempo) -> tuple[np.ndarray, np.ndarray]:
    """Measure how a recording wanders about the tempo that it keeps.

    Args:
        strengths: `[4, F]`, see `metre.onset_strengths`.
        kept: with a steady beat.

    Returns:
        Times in seconds, and by how many seconds it is behind its grid there, `[K]` each; at most
        half a sixteenth from one to the next. Empty if no stretch is clear.
    """
    onsets_s, weights = weighted_onsets(strengths)
    step_s = 15.0 / kept.bpm
    times_s, phases = [], []
    for time_s in np.arange(0.0, onsets_s[-1] + HOP_S, HOP_S):
        inside = np.abs(onsets_s - time_s) < 0.5 * STRETCH_S
        near = np.cos(np.pi * (onsets_s[inside] - time_s) / STRETCH_S)
        turns = (onsets_s[inside] - kept.offset_s) / step_s
        phase = _clear_phase(turns, near * weights[inside])
        if phase is not None:
            times_s.append(float(time_s))
            phases.append(phase)
    late_s = np.unwrap(phases) / (2.0 * np.pi) * step_s
    for _ in range(SMOOTHINGS if len(late_s) else 0):
        late_s = np.convolve(np.pad(late_s, 1, "edge"), [0.25, 0.5, 0.25], "valid")
    return np.array(times_s), late_s


def _drift_s(onsets_s: np.ndarray, weights: np.ndarray, step_s: float, offset_s: float) -> float:
    turns = (onsets_s - offset_s) / step_s
    stretches = (onsets_s // STRETCH_S).astype(int)
    found = [_clear_phase(turns[stretches == s], weights[stretches == s]) for s in set(stretches)]
    places = [phase for phase in found if phase is not None]
    return float(np.abs(places).max(initial=0.0)) / (2.0 * np.pi) * step_s


def _clear_phase(turns: np.ndarray, weights: np.ndarray) -> float | None:
    """Position of a stretch's onsets between the sixteenths of a grid, in radians; None if they
    don't agree.

    Args:
        turns: their times in sixteenths, `[M]`.
    """
    total = (weights * np.exp(2j * np.pi * turns)).sum()
    spread = np.sqrt(0.5 * np.square(weights).sum())
    is_clear = spread > 0.0 and np.abs(total) >= CLEAR_DEVIATIONS * spread
    return float(np.angle(total)) if is_clear else None
