"""How a take of a model is played to be on a tempo: faster or slower, and in time where it wanders.

A model counts no bars: its beat is late by up to some hundredths of a second here and early there,
most of all where a window of it ends. What wanders slowly is moved back; swing and single hits that
are off on purpose are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen_lora.audio.stretch import Lateness
from musicgen_lora.generation.wanted import STRETCH_MOST, LoopRequest
from musicgen_lora.listening.rhythm.asked_tempo import KeptTempo, lateness

OFF_MOST_S = 0.001
"""A loop that ends no further from its bar line is not stretched at all."""
STRAIGHT_S = 0.01
"""A take that leaves its grid by less is as even as people play, and is left alone."""
WANDER_MOST, LATE_MOST_S = 0.03, 0.05
"""What wanders faster, by so much of the tempo, or further, is left alone and said."""


@dataclass(frozen=True)
class Course:
    """How a take is played to be on the tempo.

    Args:
        bpm: its own tempo on the whole; NaN where it has none.
        speed: faster than 1 where it is slow.
        late_s: by how much more than its beginning it is late for that.
        began_late_s: when its grid begins, in the played take.
        straightened_s: by how much it is moved at most.
    """

    bpm: float
    speed: float = 1.0
    late_s: Lateness = np.zeros_like
    began_late_s: float = 0.0
    straightened_s: float = 0.0

    def is_near(self, bpm: float) -> bool:
        """Whether it can be stretched onto a tempo."""
        return abs(bpm / self.bpm - 1.0) <= STRETCH_MOST


def find_course(strengths: np.ndarray, kept: KeptTempo, request: LoopRequest) -> Course:
    """How a take is played: as it is, where it has no tempo or one that is too far off."""
    if not kept.is_steady:
        return Course(kept.bpm)
    course = _straight_course(strengths, kept, request)
    if course is None:
        speed = request.bpm / kept.bpm
        ends_near = abs(speed - 1.0) * request.n_bars * request.bar_s <= OFF_MOST_S
        course = Course(kept.bpm, 1.0 if ends_near else speed)
    return course if course.is_near(request.bpm) else Course(course.bpm)


def _straight_course(strengths: np.ndarray, kept: KeptTempo, request: LoopRequest) -> Course | None:
    """How a take is played that wanders about its tempo; None where it hardly does, or too much."""
    if kept.drift_s < STRAIGHT_S:
        return None
    times_s, late_s = lateness(strengths, kept)
    if len(late_s) < 2:
        return None
    # A tempo that fits a part of the take alone leaves a slope, which is the whole take's.
    slope, _ = np.polyfit(times_s, late_s, 1)
    left_s = (late_s - slope * times_s) / (1.0 - slope)
    # The bass's pitch follows, and what is a third of a sixteenth off may belong to the next.
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
