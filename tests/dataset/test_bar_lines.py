"""Where a clip's bars begin, and which bar line a window begins on."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from musicgen_lora.dataset.bar_lines import bar_lines, nearest_bar_line, stated_bar_lines


def clip(**fields: Any) -> Any:
    return SimpleNamespace(fields=fields)


def test_bars_have_four_beats_and_begin_where_the_metadata_says():
    assert bar_lines(clip(bpm=120, first_bar_s=0.25), 50.0) == (12.5, 100.0)
    assert bar_lines(clip(bpm=93.75), 50.0) == (0.0, 128.0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"first_bar_s": 0.5},
        {"bpm": "120"},
        {"bpm": True},
        {"bpm": 0},
        {"bpm": math.nan},
        {"bpm": 120, "first_bar_s": -1.0},
        {"bpm": 120, "first_bar_s": "late"},
    ],
)
def test_what_is_no_tempo_gives_no_bars(fields):
    lines = bar_lines(clip(**fields), 50.0)
    assert np.isnan(lines).all()
    assert nearest_bar_line(17, 40, lines) == 17


@pytest.mark.parametrize("lines", [(0.0, 100.0), (12.5, 71.4), (3.0, 7.3), (40.2, 500.0)])
@pytest.mark.parametrize("spare", [0, 5, 39, 40, 41, 333])
def test_a_window_begins_on_the_nearest_line_that_leaves_it_whole(lines, spare):
    first, length = lines
    allowed = [round(first + n * length) for n in range(200)]
    allowed = [line for line in allowed if line <= spare]
    for start in range(spare + 1):
        found = nearest_bar_line(start, spare, lines)
        if not allowed:
            assert found == start
        else:
            assert found in allowed
            assert abs(found - start) <= min(abs(line - start) for line in allowed) + 1


def test_a_text_states_them_by_its_tempo_alone():
    assert stated_bar_lines("dark trap, 120 bpm", 50.0) == (0.0, 100.0)
    assert stated_bar_lines("BPM: 93.75", 50.0) == (0.0, 128.0)
    for text in (None, "", "trap", "from 90 bpm to 140 bpm", "808 beat", "9999 bpm"):
        assert np.isnan(stated_bar_lines(text, 50.0)).all()
