"""Estimates a loop's tempo from its own length.

A single bar doesn't repeat, so autocorrelation says nothing about it. But a loop is as long as its
bars: 2.474 s are four beats at 97. Most lengths are whole bars of some plausible tempo; a loop's
onsets also fall on that tempo's sixteenths, counted from its start, and those of other recordings
don't. Their agreement is measured in standard deviations of that of unrelated onsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen_lora.listening.rhythm.metre import FASTEST_BPM, FRAME_RATE, SLOWEST_BPM
from musicgen_lora.listening.rhythm.onsets import pick_onsets

SHORTEST_S, LONGEST_S = 1.5, 16.0
LOOP_BARS = np.array([1.0, 2.0, 4.0, 8.0])
AGREED = 4.0
"""Deviations from which onsets agree with a tempo. Of 150 loops cut from 808 beats 148 reach it; of
300 excerpts of such beats three, all with their real tempo; of 150 noises, drones and scattered
hits none (`benchmarks/listening/loop_tempo.py`)."""
DOUBTED, SURE = 2.5, 4.5
"""The evidence rises from 0 to 1 between these."""
EXACT_BPM, EXACT_WORTH = 0.02, 1.0
"""Sequencers are set to whole numbers: a tempo this close to one adds so many deviations, unless
the length is a whole number of half seconds, as that of excerpts is."""
EXCERPT_S, EXCERPT_SLACK_S = 0.5, 0.002


@dataclass(frozen=True)
class LoopTempo:
    """A tempo at which a recording has whole bars, and how well its onsets agree."""

    bpm: float
    agreement: float

    @property
    def evidence(self) -> float:
        """0 to 1."""
        return float(np.clip((self.agreement - DOUBTED) / (SURE - DOUBTED), 0.0, 1.0))


def whole_tempi(duration_s: float) -> np.ndarray:
    """Plausible tempos `[T]` at which a length is 1, 2, 4 or 8 bars of 4/4."""
    bpms = 240.0 / duration_s * LOOP_BARS
    return bpms[(bpms >= SLOWEST_BPM) & (bpms <= FASTEST_BPM)]


def agreed_tempi(strengths: np.ndarray, duration_s: float) -> list[LoopTempo]:
    """The tempos that a recording's length and its onsets agree on; none if it isn't a loop.

    Args:
        strengths: `[4, F]`, see `metre.onset_strengths`.
    """
    if not SHORTEST_S <= duration_s <= LONGEST_S:
        return []
    onsets_s, weights = weighted_onsets(strengths)
    if not len(onsets_s):
        return []
    # For unrelated onsets the cosines have mean 0 and variance 1/2.
    deviation = float(np.sqrt(0.5 * np.square(weights).sum()))
    is_excerpt = abs(duration_s / EXCERPT_S - round(duration_s / EXCERPT_S)) < EXCERPT_SLACK_S
    found = []
    for bpm in whole_tempi(duration_s).tolist():
        on_grid = float((weights * np.cos(2.0 * np.pi * onsets_s * bpm / 15.0)).sum())
        agreement = on_grid / deviation
        if agreement >= DOUBTED and abs(bpm - round(bpm)) < EXACT_BPM and not is_excerpt:
            agreement += EXACT_WORTH
        if agreement >= AGREED:
            found.append(LoopTempo(bpm, agreement))
    return found


def weighted_onsets(strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds `[M]` and strengths of the onsets in onset strengths `[4, F]`."""
    spread = strengths.std(axis=1, keepdims=True)
    strength = (strengths / np.maximum(spread, 1e-9)).sum(axis=0, where=spread > 0.0)
    onsets_s = pick_onsets(strength, FRAME_RATE)
    frames = np.minimum(np.round(onsets_s * FRAME_RATE).astype(int), len(strength) - 1)
    return onsets_s, strength[frames]
