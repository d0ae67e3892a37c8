"""How a take is time-stretched onto a tempo: its speed, and corrections where its beat wanders.

A model doesn't count bars: its beat runs up to some hundredths of a second late or early, most of
all where a window ends. Slow wandering is corrected; swing and single hits that are off on purpose
are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen_lora.audio.stretch import Lateness
from musicgen_lora.generation.wanted import STRETCH_MOST, LoopRequest
from musicgen_lora.listening.rhythm.asked_tempo import KeptTempo, lateness

OFF_MOST_S = 0.001
"""A loop whose end is this close to its bar line is not stretched at all."""
STRAIGHT_S = 0.01
"""A take that drifts less from its grid is as even as human playing, and is left alone."""
WANDER_MOST, LATE_MOST_S = 0.03, 0.05
"""Wandering faster than this share of the tempo, or further, is left alone and reported."""


@dataclass(frozen=True)
class Course:
    """How a take is stretched onto the tempo.

    Args:
        bpm: its own overall tempo; NaN if it has none.
        speed: above 1 if the take is too slow.
        late_s: how late the beat is at a time of the take, relative to its beginning.
        began_late_s: where the grid begins in the stretched take.
        straightened_s: largest correction.
    """

    bpm: float
    speed: float = 1.0
    late_s: Lateness = np.zeros_like
    began_late_s: float = 0.0
    straightened_s: float = 0.0

    def is_near(self, bpm: float) -> bool:
        """Whether the take is close enough to a tempo to be stretched onto it."""
        return abs(bpm / self.bpm - 1.0) <= STRETCH_MOST


def find_course(strengths: np.ndarray, kept: KeptTempo, request: LoopRequest) -> Course:
    """Find the course of a take; it is left as it is if it has no tempo or one too far off."""
    if not kept.is_steady:
        return Course(kept.bpm)
    course = _straight_course(strengths, kept, request)
    if course is None:
        speed = request.bpm / kept.bpm
        ends_near = abs(speed - 1.0) * request.n_bars * request.bar_s <= OFF_MOST_S
        course = Course(kept.bpm, 1.0 if ends_near else speed)
    return course if course.is_near(request.bpm) else Course(course.bpm)


def _straight_course(strengths: np.ndarray, kept: KeptTempo, request: LoopRequest) -> Course | None:
    """The course of a take that wanders about its tempo; None if it does so too little or much."""
    if kept.drift_s < STRAIGHT_S:
        return None
    times_s, late_s = lateness(strengths, kept)
    if len(late_s) < 2:
        return None
    # A tempo fitted to only a part of the take leaves a slope, which belongs to the whole take.
    slope, _ = np.polyfit(times_s, late_s, 1)
    left_s = (late_s - slope * times_s) / (1.0 - slope)
    # The bass's pitch bends with it, and a hit a third of a sixteenth off may belong to the next.
    is_fast = (np.abs(np.diff(left_s)) > WANDER_MOST * np.diff(times_s)).any()
    moved_s = float(np.abs(left_s - left_s.mean()).max())
    if is_fast or moved_s > LATE_MOST_S:
        return None
    bpm = kept.bpm * (1.0 - float(slope))
    return Course(
        bpm=bpm,
        speed=request.bpm / bpm,
        late_s=lambda at_s: np.interp(at_s, times_s, left_s) - left_s[0],
        began_late_s=float(late_s[0] - slope * times_s[0]) * kept.bpm / request.bpm,
        straightened_s=moved_s,
    )
