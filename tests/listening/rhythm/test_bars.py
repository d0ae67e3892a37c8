"""Cutting on bar lines: where the lines are known, unsure or unknown."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from musicgen_lora.listening.rhythm.bars import cut_on_bars, repeats_to_reach, whole_bars
from musicgen_lora.listening.rhythm.tempo import Tempo


def steady(
    bpm: float,
    duration_s: float,
    *,
    first_bar_s: float = 0.0,
    confidence: float = 1.0,
    bar_confidence: float = 1.0,
) -> Tempo:
    beats = np.arange(first_bar_s, duration_s + 1e-6, 60.0 / bpm)
    return Tempo(bpm, bpm / 2.0, confidence, beats, beats[::4], bar_confidence, True)


def test_windows_are_whole_phrases_on_bar_lines() -> None:
    # Bars of 2 s: 12 are 24 s, the phrase of four that loses least of 45 bars.
    cuts = cut_on_bars(steady(120.0, 90.7, first_bar_s=0.7), 90.7)
    assert cuts.grid == "bars"
    bars = (np.array(cuts.windows_s) - 0.7) / 2.0
    assert bars == pytest.approx(np.round(bars), abs=1e-6)
    lengths = np.diff(bars, axis=1)[:, 0]
    assert ((lengths * 2.0 >= 15.0) & (lengths * 2.0 <= 30.0)).all()
    assert (lengths[:-1] % 4 == 0).all()
    assert lengths.sum() >= 44
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(cuts.windows_s))


def test_a_window_of_exactly_the_longest_is_allowed() -> None:
    # 15 bars of 2 s; two windows of 8 bars would lose none, but 16 + 14 s are shorter than 15.
    cuts = cut_on_bars(steady(120.0, 30.0), 30.0)
    assert cuts.windows_s == ((0.0, 30.0),)


def test_silence_is_left_out_and_never_crossed() -> None:
    cuts = cut_on_bars(steady(120.0, 100.0), 100.0, silences_s=[(0.0, 5.5), (47.0, 55.0)])
    assert len(cuts.windows_s) >= 3
    for start_s, stop_s in cuts.windows_s:
        assert start_s % 2.0 == pytest.approx(0.0)
        assert stop_s <= 48.0 or start_s >= 54.0
        assert start_s >= 6.0 - 2.0


def test_a_break_shorter_than_half_a_bar_stays() -> None:
    cuts = cut_on_bars(steady(120.0, 24.0), 24.0, silences_s=[(10.0, 10.9)])
    assert cuts.windows_s == ((0.0, 24.0),)


def test_unsure_bars_are_cut_where_they_are_likely() -> None:
    tempo = steady(120.0, 60.2, first_bar_s=0.2, bar_confidence=0.2)
    cuts = cut_on_bars(tempo, 60.2)
    assert cuts.grid == "beats"
    beats = (np.array(cuts.windows_s) - 0.2) / 0.5
    assert beats == pytest.approx(np.round(beats), abs=1e-6)
    assert (np.round(np.diff(beats, axis=1)) % 4 == 0).all()


def test_an_unsure_tempo_gives_equal_windows_and_says_so() -> None:
    tempo = steady(120.0, 100.0, confidence=0.1, bar_confidence=0.1)
    cuts = cut_on_bars(tempo, 100.0, silences_s=[(0.0, 4.0)])
    assert cuts.grid == "time"
    assert cuts.windows_s[0][0] == 4.0
    assert cuts.windows_s[-1][1] == pytest.approx(100.0)
    assert np.diff(cuts.windows_s, axis=1) == pytest.approx(24.0)


def test_a_short_track_is_one_window() -> None:
    assert cut_on_bars(steady(120.0, 9.0), 9.0).windows_s == ((0.0, 8.0),)
    unsure = steady(120.0, 9.0, confidence=0.0, bar_confidence=0.0)
    assert cut_on_bars(unsure, 9.0).windows_s == ((0.0, 9.0),)


def test_silence_alone_gives_nothing() -> None:
    unsure = steady(120.0, 9.0, confidence=0.0, bar_confidence=0.0)
    assert cut_on_bars(unsure, 9.0, silences_s=[(0.0, 9.0)]).windows_s == ()
    assert cut_on_bars(steady(120.0, 9.0), 9.0, silences_s=[(0.0, 9.0)]).windows_s == ()


@pytest.mark.parametrize("bpm", [62.0, 75.5, 93.0, 128.0, 140.0, 170.0])
@pytest.mark.parametrize("duration_s", [31.0, 44.0, 95.0, 240.0])
def test_limits_hold_at_any_tempo(bpm: float, duration_s: float) -> None:
    for bar_confidence in (0.0, 1.0):
        tempo = steady(bpm, duration_s, first_bar_s=0.3, bar_confidence=bar_confidence)
        lengths = np.diff(cut_on_bars(tempo, duration_s).windows_s, axis=1)
        assert (lengths >= 15.0 - 0.01).all()
        assert (lengths <= 30.0 + 0.01).all()
        assert lengths.sum() > 0.75 * duration_s - 4.0


def test_limits_that_no_number_of_bars_fits() -> None:
    # Bars of 4 s between 5 and 7 s: single bars. Bars longer than the longest window: by time.
    cuts = cut_on_bars(steady(60.0, 40.0), 40.0, min_s=5.0, max_s=7.0)
    assert cuts.grid == "bars"
    assert np.diff(cuts.windows_s, axis=1) == pytest.approx(4.0)
    assert len(cuts.windows_s) == 10
    cuts = cut_on_bars(steady(60.0, 40.0), 40.0, min_s=2.0, max_s=3.0)
    assert cuts.grid == "time"
    assert np.diff(cuts.windows_s, axis=1).max() <= 3.0


@pytest.mark.parametrize(("min_s", "max_s"), [(20.0, 10.0), (0.0, 10.0), (-1.0, 10.0)])
def test_impossible_limits_are_refused(min_s: float, max_s: float) -> None:
    with pytest.raises(ValueError, match="impossible"):
        cut_on_bars(steady(120.0, 60.0), 60.0, min_s=min_s, max_s=max_s)


def test_loops_are_told_by_their_length() -> None:
    tempo = steady(120.0, 8.0)
    assert whole_bars(tempo, 8.0) == 4
    assert whole_bars(tempo, 8.03) == 4
    assert whole_bars(tempo, 8.5) is None
    assert whole_bars(tempo, 0.01) is None
    assert whole_bars(steady(120.0, 8.0, confidence=0.1), 8.0) is None


@pytest.mark.parametrize(
    ("loop_s", "expected"), [(8.0, 2), (7.5, 2), (4.0, 4), (20.0, 1), (14.0, 2), (40.0, 1)]
)
def test_repeats(loop_s: float, expected: int) -> None:
    assert repeats_to_reach(loop_s, 15.0, 30.0) == expected
