"""Measures the swing of a beat: how late its off-beat sixteenths are.

A drum machine's swing moves the second sixteenth of each eighth, so each onset is placed within its
eighth, and the median of those between the eighths is the swing. Triplets are at a third and two
thirds: if the first third is played too, an onset at the second isn't swing.
"""

from __future__ import annotations

import numpy as np

EARLIEST, LATEST = 0.44, 0.7
"""Range within an eighth in which the second sixteenth is searched: straight is at 0.5, a full
shuffle at 2/3."""
TRIPLET_FROM, TRIPLET_TO = 0.28, 0.385
"""Range around a third of an eighth; mirrored around two thirds."""
LATEST_BESIDE_TRIPLETS = 0.6
FEWEST = 4
"""Fewest sixteenths between the eighths for a swing to be measured."""


def find_swing(onsets_s: np.ndarray, beats_s: np.ndarray) -> float:
    """Share of an eighth that its first sixteenth takes: 0.5 is straight, 2/3 a full shuffle.

    Args:
        onsets_s: times of all onsets `[M]`.
        beats_s: times of the beats `[B]`, from `tempo.estimate_tempo`.

    Returns:
        NaN with fewer than 3 beats, or fewer than 4 sixteenths between the eighths.
    """
    if len(beats_s) < 3:
        return float("nan")
    onsets_s = onsets_s[onsets_s >= beats_s[0]]
    beat = np.clip(np.searchsorted(beats_s, onsets_s, side="right") - 1, 0, len(beats_s) - 2)
    places = (onsets_s - beats_s[beat]) / np.diff(beats_s)[beat] * 2.0 % 1.0
    thirds = _within(places, TRIPLET_FROM, TRIPLET_TO).sum()
    two_thirds = _within(places, 1.0 - TRIPLET_TO, 1.0 - TRIPLET_FROM).sum()
    has_triplets = two_thirds > 0 and thirds >= 0.5 * two_thirds
    between = places[_within(places, EARLIEST, LATEST_BESIDE_TRIPLETS if has_triplets else LATEST)]
    return float(np.median(between)) if len(between) >= FEWEST else float("nan")


def _within(places: np.ndarray, low: float, high: float) -> np.ndarray:
    return (places > low) & (places < high)
