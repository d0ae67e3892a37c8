"""How a track develops: sections of a few bars in which parts rest, return or vary."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Section:
    """Some bars of a track.

    Args:
        start: first bar.
        n_bars: how many.
        variant: 0 or 1: which of the track's two sets of grids is played.
        resting: parts that don't play: "kick", "drums", "bass", "chords", "lead".
    """

    start: int
    n_bars: int
    variant: int
    resting: frozenset[str] = frozenset()

    @property
    def bars(self) -> range:
        return range(self.start, self.start + self.n_bars)


RESTS = (
    ({"kick"}, 2.0),
    ({"drums"}, 1.0),
    ({"bass"}, 1.5),
    ({"chords"}, 1.5),
    ({"lead"}, 2.0),
    ({"chords", "lead"}, 1.5),
    ({"bass", "kick"}, 1.0),
)
"""Parts that may rest for a section, and how likely each is."""


def arrange(
    rng: np.random.Generator, n_bars: int, bar_s: float, parts: Collection[str], develops: float
) -> list[Section]:
    """The sections of a track, without gaps.

    Args:
        rng: draws lengths, variants and rests.
        n_bars: of the whole track.
        bar_s: length of a bar; sections last some 6 to 18 seconds.
        parts: those of the track.
        develops: 0 never changes, 1 changes with nearly every section.
    """
    lengths = [n for n in (2, 4, 8, 16) if 6.0 <= n * bar_s <= 18.0] or [4]
    sections: list[Section] = []
    start = 0
    while start < n_bars:
        length = min(int(rng.choice(lengths)), n_bars - start)
        variant = int(rng.random() < 0.55 * develops)
        resting: frozenset[str] = frozenset()
        was_full = not sections or not sections[-1].resting
        if was_full and rng.random() < 0.6 * develops:
            resting = _rest(rng, parts)
        sections.append(Section(start, length, variant, resting))
        start += length
    return sections


def _rest(rng: np.random.Generator, parts: Collection[str]) -> frozenset[str]:
    """Parts that rest, so that at least one other part plays on."""
    sounding = {*parts, "kick"} if "drums" in parts else set(parts)
    options = [
        (frozenset(rest), weight)
        for rest, weight in RESTS
        if rest <= sounding and set(parts) - rest
    ]
    if not options:
        return frozenset()
    weights = np.array([weight for _, weight in options])
    return options[int(rng.choice(len(options), p=weights / weights.sum()))][0]


def playing(sections: list[Section], part: str) -> Iterator[tuple[int, Section]]:
    """Each bar in which the part plays, with its section."""
    for section in sections:
        if part not in section.resting:
            for bar in section.bars:
                yield bar, section
