"""A clip has its own tempo, unless its whole file has one steady tempo."""

from __future__ import annotations

from dataclasses import replace

import pytest

from musicgen_lora.prepare.clips.windows import own_segment
from musicgen_lora.prepare.hearing.records import Segment


def segment(bpm: float | None, confidence: float, *, is_steady: bool = True) -> Segment:
    return Segment(
        start_s=0.0,
        duration_s=10.0,
        bpm=bpm,
        tempo_confidence=confidence,
        is_steady=is_steady and bpm is not None,
        key="C minor",
    )


@pytest.mark.parametrize(
    ("file", "clip", "bpm"),
    [
        (segment(140.0, 0.9), segment(90.0, 0.9), 90.0),
        (segment(140.0, 0.3, is_steady=False), segment(90.0, 0.2), 90.0),
        (segment(140.0, 0.9), segment(None, 0.0), 140.0),
        (segment(140.0, 0.9), segment(93.0, 0.2), 140.0),
        (segment(140.0, 0.9), segment(70.1, 0.9), 140.0),
        (segment(140.0, 0.9, is_steady=False), segment(70.1, 0.9), 70.1),
        (segment(None, 0.0, is_steady=False), segment(None, 0.0), None),
    ],
)
def test_the_tempo(file: Segment, clip: Segment, bpm: float | None) -> None:
    found = own_segment(replace(file, key="F minor"), clip)
    assert (found.bpm, found.key) == (bpm, "C minor")


def test_a_whole_file_is_what_its_record_says() -> None:
    assert own_segment(segment(140.0, 0.9), None) == segment(140.0, 0.9)
