"""How far the off-beat sixteenths of a beat are late: its swing.

A drum machine's swing moves the second sixteenth of each eighth, so each onset is placed within the
eighth that it falls into, and the middle of those between is told. Triplets lie at a third and two
thirds: where the first is played too, what lies at the second is no swing.
"""

from __future__ import annotations

import numpy as np

EARLIEST, LATEST = 0.44, 0.7
"""Places within an eighth between which the second sixteenth is looked for: a straight one is at
0.5, a full shuffle at 2/3."""
TRIPLET_FROM, TRIPLET_TO = 0.28, 0.385
"""Around the third of an eighth, and as far from its end."""
LATEST_BESIDE_TRIPLETS = 0.6
FEWEST = 4
"""Sixteenths between of which a swing is told."""


def find_swing(onsets_s: np.ndarray, beats_s: np.ndarray) -> float:
    """Share of an eighth that its first sixteenth takes: 0.5 is straight, 2/3 a full shuffle.

    Args:
        onsets_s: times of all onsets `[M]`.
        beats_s: times of the beats `[B]`, as `tempo.estimate_tempo` gives them.

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
