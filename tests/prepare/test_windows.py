"""The tempo of a clip is its own, unless its file has one for all of it."""

from __future__ import annotations

from typing import Any

import pytest

from musicgen_lora.prepare.clips.windows import own_segment


def segment(bpm: float | None, confidence: float, *, is_steady: bool = True) -> dict[str, Any]:
    return {
        "bpm": bpm,
        "alternative_bpm": None,
        "tempo_confidence": confidence,
        "is_steady": is_steady,
        "key": "C minor",
    }


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
def test_the_tempo(file: dict[str, Any], clip: dict[str, Any], bpm: float | None) -> None:
    file["key"] = "F minor"
    found = own_segment(file, clip)
    assert (found["bpm"], found["key"]) == (bpm, "C minor")


def test_a_whole_file_is_what_its_record_says() -> None:
    assert own_segment(segment(140.0, 0.9), None) == segment(140.0, 0.9)
